defmodule Tube do
  @moduledoc """
  A fast, ordered, reliable, two-way message link between two Erlang VMs of one machine.

  The VMs run in two Xen domains, or as two OS processes or containers on one Linux host, where
  each is a virtual domain with its own `domid`. The side that opens a tube is the *nock*, the
  side that accepts it is the *tip*:

      # in domain 5, the tip
      {:ok, listener} = Tube.listen(service: "echo", active: false)
      {:ok, tube} = Tube.accept(listener)
      {:ok, "hello"} = Tube.recv(tube)

      # in domain 7, the nock
      {:ok, tube} = Tube.open(5, service: "echo")
      :ok = Tube.send(tube, "hello")

  Either side may start first: `open/2` waits for a listener, up to its time limit.

  ## Messages and ownership

  A tube carries messages, not bytes: the data of one `send/3` arrives whole or not at all, in
  order, and is never dropped. Any process may send. The process that opened or accepted the
  tube *owns* it: only the owner may receive, set options, close the tube or hand it over, and
  the tube closes when its owner ends. An active tube sends its owner

    * `{:tube, tube, data}` for each message,
    * `{:tube_passive, tube}` when a count given to `:active` is used up,
    * `{:tube_closed, tube}` when the peer has closed and every message is delivered,
    * `{:tube_error, tube, reason}` and then `{:tube_closed, tube}` when the tube ended for
      another reason.

  With `mode: :port` the tube behaves like a port: its `pid` takes `{owner, {:command, iodata}}`,
  `{owner, {:connect, pid}}` and `{owner, :close}`, delivers `{pid, {:data, data}}`, is linked to
  its owner, and exits with the reason. Unlike a busy port, `{:command, iodata}` never makes its
  sender wait: data that does not fit into the ring waits in the tube's process.

  ## Back-pressure

  A receiver that is slow, passive or has used up its count lets its ring fill; then `send/3`
  waits at the other end, up to `:send_timeout`.

  ## Polling

  Waking a sleeping receiver takes about ten microseconds, most of them in the kernel. With
  `poll: {:adaptive, 200}` a receiver that waits polls the ring for up to 200 microseconds before
  it sleeps, and lets other processes run between two polls. A round trip between two ends that
  both poll takes about a microsecond.

  The price is processor time: a VM that polls keeps one of its schedulers busy. Use it when each
  VM has a processor to spare; when they share one, the VM that polls keeps the other from running.
  Polling adapts: the time is halved after each unsuccessful attempt, and doubled after each
  successful one, up to the number given. An idle tube soon is not polled at all, and where
  processors are short, attempts become rare.

  Polling works for `recv/2`, `recv_many/3` and for active tubes, where a small process polls. Each
  end sets it for itself. It does not affect sends that wait for room.

  ## Reasons

  Errors are `{:error, reason}` with the reasons of `Tube.Error`. Invalid arguments and options
  raise `ArgumentError`, with a message that says what is wrong and what is allowed.

  ## Examples on this page

  On the local platform a VM may open tubes to itself. The examples do that, so you can paste each
  of them into one IEx session.
  """

  alias Tube.Connection.{Blocking, Link}
  alias Tube.{Connection, Domain, Listener, Native, Options}
  alias Tube.Domain.Suspension

  @enforce_keys [:pid, :port, :id]
  defstruct [:pid, :port, :id]

  @typedoc """
  A tube: its process, its driver port, and its number in the native library.

  Every message about the tube holds the same term, so you may match on it. It is valid only in the
  VM that made it.
  """
  @type t :: %__MODULE__{pid: pid, port: port, id: non_neg_integer}

  @typedoc "A listener from `listen/1`, or the pid or name of one from `start_link/1`."
  @type listener :: GenServer.server()

  @typedoc "The number of a domain, on Xen or on the local platform."
  @type domid :: 0..unquote(Tube.Paths.max_domid())

  @type reason :: Tube.Error.reason()

  defguardp is_here(tube) when is_struct(tube, __MODULE__) and node(tube.pid) == node()

  @doc """
  Returns the number of this VM's domain.

  Attaches to the platform first if necessary: on the local platform this claims a virtual domain,
  and starts `tube-hub` if none is running. Errors: `{:no_hub, text}`, `{:hub_version, text}`,
  `{:domid_taken, text}`, `{:bad_run_dir, text}`, `{:suspended, text}`, and what a platform may
  lack (`available?/1`).

      iex> {:ok, domid} = Tube.domid()
      iex> domid in 0..0x7FEF
      true
  """
  @doc group: :domain
  @spec domid() :: {:ok, domid} | {:error, reason}
  def domid, do: Domain.domid()

  @doc """
  Checks whether this VM can have tubes on a platform: `true`, or `{false, lacks}` with everything
  that is missing, each with a sentence that says how to get it:

      {false, [no_gntalloc: "/dev/xen/gntalloc is not there: in a Xen domain, modprobe xen-gntalloc"]}

  On Xen these are `:no_xenbus`, `:no_gntalloc`, `:no_gntdev` and `:no_evtchn` (a device is
  missing), `:no_libxengnttab` and `:no_libxenevtchn` (a Xen library is missing), and `:eacces`
  (this user may not open a device). The check neither attaches to a platform nor starts anything.

  To choose the platform, set `config :tube, platform: :xen | :local` or the variable
  `TUBE_PLATFORM`. By default, a VM with a run directory uses the local platform, and any other VM
  uses Xen if `/dev/xen/xenbus` exists.

      iex> Tube.available?(:local)
      true
  """
  @doc group: :domain
  @spec available?(:local | :xen) :: true | {false, [{atom, String.t()}]}
  def available?(platform) when platform in [:local, :xen] do
    case Domain.missing(platform) do
      [] -> true
      lacks -> {false, lacks}
    end
  end

  def available?(other) do
    raise ArgumentError, "#{inspect(other)} is not a platform: allowed are :local and :xen"
  end

  @doc """
  Opens a tube to a service of the domain `peer`. The calling process owns it.

  Waits until the tip listens and the handshake is complete, for at most `:timeout` milliseconds.

  ## Options

  #{Options.docs(:open)}

  ## Errors

  `:timeout` (nobody listens there, or does not allow this domain), `:refused`, `:busy`, `:version`,
  `:eexist` (the `:tid` is in use), `:peer_down`, `:peer_domain_gone`, `:protocol`, and those of
  `domid/0`.

  ## Example

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, _listener} = Tube.listen(service: "open")
      iex> {:ok, tube} = Tube.open(me, service: "open")
      iex> Tube.send(tube, "hello")
      :ok
      iex> Tube.open(me, service: "nobody listens to it", timeout: 50)
      {:error, :timeout}
  """
  @doc group: :opening
  @spec open(domid, keyword) :: {:ok, t} | {:error, reason}
  def open(peer, options \\ []) do
    peer = Options.domid!(peer)
    options = Options.validate!(options, :open)
    Connection.open(peer, options)
  end

  @doc """
  Listens for tubes to a service of this domain. The calling process owns the listener: when the
  process ends, so does the listener.

  ## Options

  #{Options.docs(:listen)}

  ## Errors

  `:eexist` (this VM already listens for that service), and those of `domid/0`.

  ## Example

      iex> {:ok, listener} = Tube.listen(service: "listen", peers: [5, 7], active: 32)
      iex> Tube.listen(service: "listen")
      {:error, :eexist}
      iex> Tube.accept(listener, 10)
      {:error, :timeout}
  """
  @doc group: :opening
  @spec listen(keyword) :: {:ok, listener} | {:error, reason}
  def listen(options \\ []) do
    options |> Options.validate!(:listen) |> Listener.open()
  end

  @doc """
  Starts a listener linked to the calling process, as part of a supervision tree:

      children = [{Tube, service: "echo", active: false, name: Echo}]
      Supervisor.start_link(children, strategy: :one_for_one)
      {:ok, tube} = Tube.accept(Echo)

  Any process may accept. `Tube.Handler` also runs a supervised process for each tube.

  ## Options

  #{Options.docs(:start_link)}

  Errors: those of `listen/1`, and `{:already_started, pid}` if the `:name` is in use.

  ## Example

      iex> {:ok, pid} = Tube.start_link(service: "start_link", name: MyListener)
      iex> {:error, {:already_started, ^pid}} = Tube.start_link(service: "other", name: MyListener)
      iex> Tube.accept(MyListener, 10)
      {:error, :timeout}
  """
  @doc group: :opening
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options \\ []) do
    options = Options.validate!(options, :start_link)
    Listener.link(options, if(options.name, do: [name: options.name], else: []))
  end

  @doc """
  Returns the child specification of a listener. Takes the options of `start_link/1`, and `:id` (by
  default the `:name`, or else `{Tube, service}`). Invalid options raise `ArgumentError`.

      iex> Tube.child_spec(service: "echo").id
      {Tube, "echo"}
      iex> Supervisor.child_spec({Tube, service: "echo", name: Echo}, restart: :transient).id
      Echo
  """
  @doc group: :opening
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    {id, options} = Options.id!(options, :start_link)
    listen = Options.validate!(options, :start_link)

    %{
      id: id || listen.name || {__MODULE__, listen.service},
      start: {__MODULE__, :start_link, [options]}
    }
  end

  @doc """
  Accepts the tube that has waited longest, or waits for the next one, for at most `timeout`
  milliseconds. The calling process owns it.

  Errors: `:timeout`, `:closed` (the listener has ended).

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, listener} = Tube.listen(service: "accept", active: false)
      iex> {:ok, nock} = Tube.open(me, service: "accept")
      iex> {:ok, tip} = Tube.accept(listener, 5_000)
      iex> :ok = Tube.send(nock, "first")
      iex> Tube.recv(tip)
      {:ok, "first"}
  """
  @doc group: :opening
  @spec accept(listener, timeout) :: {:ok, t} | {:error, reason}
  def accept(listener, timeout \\ :infinity)

  def accept(listener, timeout)
      when is_pid(listener) or (is_atom(listener) and listener != nil) or is_tuple(listener) do
    Listener.accept(listener, Options.timeout!(timeout))
  end

  def accept(other, _timeout) do
    raise ArgumentError,
          "#{inspect(other)} is not a listener: allowed is a pid from listen/1, or the pid or " <>
            "name of a listener from start_link/1"
  end

  @doc """
  Sends one message; returns when all of it is in the ring.

  `data` is iodata. When the ring is full, waits for room, up to a limit in milliseconds. If the
  limit passes, the peer sees nothing of the message. A number is short for `[timeout: number]`.

  ## Options

  #{Options.docs(:send)}

  Errors: `:timeout`, `:busy` (no room, and the limit is 0), `:closed`, `:emsgsize`, `:peer_down`,
  `:peer_domain_gone`, `:protocol`, `:distribution` (the tube carries distributed Erlang).

      case Tube.send(tube, sample, nosuspend: true) do
        :ok -> :sent
        {:error, :busy} -> :skipped
      end

  Each call sends one message, whatever shape its iodata has:

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, listener} = Tube.listen(service: "send", active: false, max_message: 100)
      iex> {:ok, nock} = Tube.open(me, service: "send")
      iex> {:ok, tip} = Tube.accept(listener)
      iex> :ok = Tube.send(nock, ["one", " message"])
      iex> :ok = Tube.send(nock, "")
      iex> {Tube.recv(tip), Tube.recv(tip)}
      {{:ok, "one message"}, {:ok, ""}}
      iex> Tube.send(nock, :binary.copy("x", 101))
      {:error, :emsgsize}
  """
  @doc group: :data
  @spec send(t, iodata, timeout | :default | [timeout: timeout, nosuspend: boolean]) ::
          :ok | {:error, reason}
  def send(tube, data, options \\ :default)

  def send(tube, data, options) when is_list(options),
    do: send(tube, data, send_limit(options))

  def send(%__MODULE__{id: id, pid: pid}, data, timeout) when node(pid) == node() do
    # Flattened by the VM's own function, which yields; a native one would hold the scheduler.
    data = if is_binary(data), do: data, else: IO.iodata_to_binary(data)

    case Native.send(id, data) do
      :ok -> :ok
      other -> Blocking.send(other, id, data, timeout)
    end
  end

  def send(tube, _data, _timeout), do: elsewhere!(tube)

  defp send_limit(options) when is_list(options) do
    case Options.validate!(options, :send) do
      %{nosuspend: true} -> 0
      %{timeout: limit} -> limit || :default
    end
  end

  defp send_limit(limit), do: limit

  @doc """
  Sends each element of a list as a message, in order; returns when all of them are in the ring.

  This is the fastest way to send many small messages, as `recv_many/3` is to receive them: all of
  them share one call, one lock and one notification of the peer. Messages from other senders may
  come in between. Otherwise it works like `send/3`; the time limit applies to the whole list.

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, listener} = Tube.listen(service: "send_many", active: false)
      iex> {:ok, nock} = Tube.open(me, service: "send_many")
      iex> {:ok, tip} = Tube.accept(listener)
      iex> :ok = Tube.send_many(nock, ["one", ["t", "wo"]])
      iex> Tube.recv_many(tip)
      {:ok, ["one", "two"]}

  Errors are `{:error, {reason, rest}}` with the reasons of `send/3`: the messages before `rest` are
  in the ring, and the peer sees nothing of those in `rest`. An element that is not iodata raises
  `ArgumentError` before anything is sent.

      case Tube.send_many(tube, samples, timeout: 100) do
        :ok -> []
        {:error, {:timeout, rest}} -> rest
      end

  ## Options

  #{Options.docs(:send)}
  """
  @doc group: :data
  @spec send_many(t, [iodata], timeout | :default | [timeout: timeout, nosuspend: boolean]) ::
          :ok | {:error, {reason, [iodata]}}
  def send_many(tube, messages, options \\ :default)

  def send_many(%__MODULE__{id: id, pid: pid}, messages, options)
      when node(pid) == node() and is_list(messages) do
    limit = send_limit(options)

    # Checking for binaries is cheaper than flattening binaries.
    if binaries?(messages),
      do: Blocking.send_many(messages, id, limit),
      else: messages |> flatten() |> Blocking.send_many(id, limit)
  end

  def send_many(tube, messages, _options) when is_here(tube), do: no_list!(messages)

  def send_many(tube, _messages, _options), do: elsewhere!(tube)

  defp binaries?([message | others]) when is_binary(message), do: binaries?(others)
  defp binaries?(end_or_other), do: end_or_other == []

  defp flatten([message | others]), do: [IO.iodata_to_binary(message) | flatten(others)]
  defp flatten([]), do: []
  defp flatten(other), do: no_list!(other)

  @spec no_list!(term) :: no_return
  defp no_list!(other) do
    raise ArgumentError, "invalid messages #{inspect(other)}: allowed is a list of iodata"
  end

  @doc """
  Receives one message from a passive tube. Waits for at most `timeout` milliseconds.

  Errors: `:timeout`, `:closed` (the peer closed and you have received everything), `:not_owner`,
  `:einval` (the tube is active), `:peer_down`, `:peer_domain_gone`, `:protocol`.

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, listener} = Tube.listen(service: "recv", active: false)
      iex> {:ok, nock} = Tube.open(me, service: "recv")
      iex> {:ok, tip} = Tube.accept(listener)
      iex> :ok = Tube.send(nock, "a message")
      iex> :ok = Tube.shutdown(nock, :write)
      iex> Tube.recv(tip)
      {:ok, "a message"}
      iex> Tube.recv(tip)
      {:error, :closed}
      iex> Tube.recv(nock)
      {:error, :einval}
  """
  @doc group: :data
  @spec recv(t, timeout) :: {:ok, binary} | {:error, reason}
  def recv(tube, timeout \\ :infinity)

  def recv(%__MODULE__{id: id, pid: pid}, timeout) when node(pid) == node() do
    case Native.recv(id) do
      {:ok, _data} = received -> received
      other -> Blocking.recv(other, id, timeout, fn -> Native.recv(id) end)
    end
  end

  def recv(tube, _timeout), do: elsewhere!(tube)

  @doc """
  Receives the messages that have arrived, at least one and at most `max`, in order, from a passive
  tube. Waits for the first one, for at most `timeout` milliseconds, and never for more.

  This is the fastest way to receive many small messages: all of them share one call, one lock and
  one access to the ring. A call returns at most 1024 messages, and stops after about 256 KiB, so
  that it never holds a scheduler for long; call it again for the rest.

      {:ok, samples} = Tube.recv_many(tube)
      Enum.each(samples, &handle/1)

  Messages of 65 bytes to 4 KiB may share one binary of at most 32 KiB, which lives as long as any
  of them: use `:binary.copy/1` on those that you keep for long.

  Errors are those of `recv/2`. Messages that arrived before the tube ended come first.

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, listener} = Tube.listen(service: "recv_many", active: false)
      iex> {:ok, nock} = Tube.open(me, service: "recv_many")
      iex> {:ok, tip} = Tube.accept(listener)
      iex> for n <- 1..5, do: :ok = Tube.send(nock, <<n>>)
      iex> Tube.recv_many(tip, 3)
      {:ok, [<<1>>, <<2>>, <<3>>]}
      iex> Tube.recv_many(tip)
      {:ok, [<<4>>, <<5>>]}
      iex> Tube.recv_many(tip, 1024, 10)
      {:error, :timeout}
  """
  @doc group: :data
  @spec recv_many(t, pos_integer, timeout) :: {:ok, [binary, ...]} | {:error, reason}
  def recv_many(tube, max \\ 1024, timeout \\ :infinity)

  def recv_many(%__MODULE__{id: id, pid: pid}, max, timeout)
      when node(pid) == node() and is_integer(max) and max > 0 do
    # The native call has a bound of its own, and takes no number beyond 64 bits.
    most = min(max, 1024)

    case Native.recv_many(id, most) do
      {:ok, _messages} = received -> received
      other -> Blocking.recv(other, id, timeout, fn -> Native.recv_many(id, most) end)
    end
  end

  def recv_many(tube, max, _timeout) when is_here(tube) do
    raise ArgumentError, "invalid number of messages #{inspect(max)}: allowed is 1 or more"
  end

  def recv_many(tube, _max, _timeout), do: elsewhere!(tube)

  @doc """
  Sets options of a tube. Only for the owner.

  ## Options

  #{Options.docs(:setopts)}

  A number for `:active` is added to what is left of the last count; any other value replaces it.

  Errors: `:not_owner`, `:closed`. If the owner is passive when the peer closes, perhaps because its
  count is used up, its next call reports the end: `setopts/2` returns `:closed` if the owner has
  received everything, and then no `{:tube_closed, tube}` follows.

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, listener} = Tube.listen(service: "setopts", active: false)
      iex> {:ok, nock} = Tube.open(me, service: "setopts")
      iex> {:ok, tip} = Tube.accept(listener)
      iex> :ok = Tube.setopts(tip, active: :once, send_timeout: 1_000)
      iex> :ok = Tube.send(nock, "a message")
      iex> receive do {:tube, ^tip, data} -> data end
      "a message"
      iex> Tube.recv(tip, 0)
      {:error, :timeout}
  """
  @doc group: :owner
  @spec setopts(t, keyword) :: :ok | {:error, reason}
  def setopts(tube, options) when is_here(tube) do
    options = Options.validate!(options, :setopts)

    with :ok <- set_active(tube, options) do
      case Map.delete(options, :active) do
        none when none == %{} -> :ok
        others -> Connection.set(tube, others)
      end
    end
  end

  def setopts(tube, _options), do: elsewhere!(tube)

  defp set_active(tube, %{active: active}),
    do: Native.Driver.active(tube.port, Link.encode_active(active))

  defp set_active(_tube, _options), do: :ok

  @doc """
  Returns the values of options of a tube, in the order of `names`. For any process.

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, _listener} = Tube.listen(service: "getopts")
      iex> {:ok, tube} = Tube.open(me, service: "getopts", active: 10)
      iex> Tube.getopts(tube, [:active, :linger, :ring])
      {:ok, [active: 10, linger: 5000, ring: 65536]}

  ## Options

  #{Options.docs(:getopts)}

  `:active` is what is left of a count, and `:ring` the size that the tip chose and had room for.
  Errors: `:closed`.
  """
  @doc group: :owner
  @spec getopts(t, [atom]) :: {:ok, keyword} | {:error, reason}
  def getopts(tube, names) when is_here(tube) do
    names = Options.names!(names, :getopts)

    with {:ok, options} <- Connection.options(tube), {:ok, now} <- Native.info(tube.id) do
      options = %{options | active: Link.decode_active(now.active), ring: now.tx.ring}
      {:ok, for(name <- names, do: {name, Map.fetch!(options, name)})}
    end
  end

  def getopts(tube, _names), do: elsewhere!(tube)

  @doc """
  Makes `new_owner` the owner of the tube. Only for the owner.

  Messages of the tube that wait in the caller's mailbox move to the new owner, ahead of later ones.
  Errors: `:not_owner`, `:closed`, `:einval` (`new_owner` is not a live process of this VM).

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, _listener} = Tube.listen(service: "controlling_process")
      iex> {:ok, tube} = Tube.open(me, service: "controlling_process")
      iex> {:ok, agent} = Agent.start_link(fn -> nil end)
      iex> Tube.controlling_process(tube, agent)
      :ok
      iex> Tube.setopts(tube, active: :once)
      {:error, :not_owner}
      iex> Agent.get(agent, fn _ -> Tube.setopts(tube, active: :once) end)
      :ok
  """
  @doc group: :owner
  @spec controlling_process(t, pid) :: :ok | {:error, reason}
  def controlling_process(tube, new_owner) when is_here(tube) and is_pid(new_owner) do
    Connection.give(tube, new_owner)
  end

  def controlling_process(tube, _new_owner), do: elsewhere!(tube)

  @doc """
  Ends sending from this side. Only for the owner; `:write` is the only direction.

  Messages sent before are delivered. Then the peer sees the end: its `recv/2` returns
  `{:error, :closed}`, and an active owner there gets `{:tube_closed, tube}` (nothing with
  `mode: :port`). The other direction goes on: the peer may send, and this side may receive, until
  one of them closes. A second call has no effect. Errors: `:not_owner`, `:closed`.

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, listener} = Tube.listen(service: "shutdown", active: false)
      iex> {:ok, nock} = Tube.open(me, service: "shutdown", active: false)
      iex> {:ok, tip} = Tube.accept(listener)
      iex> :ok = Tube.send(nock, "the whole question")
      iex> :ok = Tube.shutdown(nock, :write)
      iex> {Tube.recv(tip), Tube.recv(tip)}
      {{:ok, "the whole question"}, {:error, :closed}}
      iex> :ok = Tube.send(tip, "the answer")
      iex> Tube.recv(nock)
      {:ok, "the answer"}
  """
  @doc group: :end
  @spec shutdown(t, :write) :: :ok | {:error, reason}
  def shutdown(tube, :write) when is_here(tube), do: Connection.shutdown(tube)
  def shutdown(tube, :write), do: elsewhere!(tube)

  def shutdown(_tube, other) do
    raise ArgumentError, "invalid direction #{inspect(other)} for shutdown: allowed is :write"
  end

  @doc """
  Closes the tube. Only for the owner.

  Messages sent before are delivered first: returns when the peer has confirmed, or after `:linger`
  milliseconds. By then everything that the tube used is free. Messages that have not been received
  here are discarded. Errors: `:not_owner`, `:closed`.

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, _listener} = Tube.listen(service: "close")
      iex> {:ok, tube} = Tube.open(me, service: "close", linger: 100)
      iex> Tube.close(tube)
      :ok
      iex> Tube.send(tube, "too late")
      {:error, :closed}
  """
  @doc group: :end
  @spec close(t) :: :ok | {:error, reason}
  def close(tube) when is_here(tube), do: Connection.close(tube)
  def close(tube), do: elsewhere!(tube)

  @doc """
  Returns information about a tube: `:role` (`:nock` or `:tip`), `:peer`, `:tid`, `:service`,
  `:mode`, `:state`, `:owner`, `:ring` (bytes of the receive and transmit rings), and its counters.

  Errors: `:closed`.

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, _listener} = Tube.listen(service: "info")
      iex> {:ok, tube} = Tube.open(me, service: "info", tid: 12)
      iex> {:ok, info} = Tube.info(tube)
      iex> {info.role, info.tid, info.owner == self()}
      {:nock, 12, true}
  """
  @doc group: :introspection
  @spec info(t) :: {:ok, map} | {:error, reason}
  def info(tube) when is_here(tube), do: Connection.info(tube)
  def info(tube), do: elsewhere!(tube)

  @doc """
  Returns the domain at the other end, and the service and number of the tube. For any process.

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, listener} = Tube.listen(service: "peer")
      iex> {:ok, _nock} = Tube.open(me, service: "peer", tid: 13)
      iex> {:ok, tip} = Tube.accept(listener)
      iex> {:ok, %{domid: ^me, service: service, tid: tid}} = Tube.peer(tip)
      iex> {service, tid}
      {"peer", 13}

  The domid comes from the platform, not from the peer. `:service` is the tip's, and `:tid` is the
  number that the nock gave to the tube, unique among its tubes to this tip. Errors: `:closed`.
  """
  @doc group: :introspection
  @spec peer(t) ::
          {:ok, %{domid: domid, service: String.t(), tid: 0..0xFFFFFFFF}} | {:error, reason}
  def peer(tube) when is_here(tube) do
    with {:ok, record} <- Connection.Registry.lookup(tube.id) do
      {:ok, %{domid: record.peer, service: record.service, tid: record.tid}}
    end
  end

  def peer(tube), do: elsewhere!(tube)

  @doc """
  Returns the counters of a tube, with the names of `:inet.getstat/1` where it has them. For any
  process.

    * `:recv_cnt`, `:recv_oct`, `:recv_max` - messages and bytes that the owner has received, and
      bytes of the largest message
    * `:recv_pend` - bytes in the receive ring, headers included, when this end last read the ring
    * `:empty_waits` - times that the receiver found no message
    * `:send_cnt`, `:send_oct`, `:send_max` - the same for the messages put into the transmit ring
    * `:send_pend` - bytes in the transmit ring, headers included, when a sender last looked; there
      may be fewer by now
    * `:send_dropped` - messages dropped because the ring was full: 0 unless `:on_full` is `:drop`
    * `:full_waits` - times that a sender found no room
    * `:bells` - notifications sent to the peer, and `:bells_spared`, those that were not needed

  Errors: `:closed`.

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, _listener} = Tube.listen(service: "getstat")
      iex> {:ok, tube} = Tube.open(me, service: "getstat")
      iex> :ok = Tube.send(tube, "four")
      iex> {:ok, counted} = Tube.getstat(tube)
      iex> {counted[:send_cnt], counted[:send_oct], counted[:recv_cnt]}
      {1, 4, 0}
  """
  @doc group: :introspection
  @spec getstat(t) :: {:ok, [{atom, non_neg_integer}]} | {:error, reason}
  def getstat(tube) when is_here(tube), do: Connection.Registry.counters(tube.id)
  def getstat(tube), do: elsewhere!(tube)

  @doc """
  Closes all tubes of this VM. Call it before the machine is suspended, saved or migrated.

  A suspended domain loses all memory that it shares with other domains: when it comes back, perhaps
  under another number, a VM that touched such memory would crash. So when this returns, the VM
  shares nothing any more and has left its domain. Until `resume/0`, `open/2`, `listen/1` and
  `domid/0` return `{:error, {:suspended, text}}`.

  Tubes close in order: messages sent before are delivered, within `limit` milliseconds for all
  tubes together. Owners get the messages that have arrived, and then `{:error, :suspended}`, or
  `{:tube_error, tube, :suspended}` and `{:tube_closed, tube}`. To the peer it is an ordinary close.
  An `open/2` in progress returns `{:error, :suspended}`. Listeners stay, and requests to open a
  tube wait until `resume/0`.

      :ok = Tube.suspend()
      # the machine is suspended or migrated, and continues
      :ok = Tube.resume()

  A second call has no effect.
  """
  @doc group: :domain
  @spec suspend(non_neg_integer) :: :ok
  def suspend(limit \\ 5_000)

  def suspend(limit) when is_integer(limit) and limit >= 0, do: Suspension.suspend(limit)

  def suspend(limit) do
    raise ArgumentError,
          "invalid limit #{inspect(limit)}: allowed is a number of milliseconds, 0 or more"
  end

  @doc """
  Attaches to the platform again, and announces all listeners. Call it after `suspend/1`, when the
  machine is back. Open your tubes again afterwards.

  On the local platform the VM becomes the same domain again; on Xen it becomes the domain that the
  machine is now. Errors are those of `domid/0`; as long as there are listeners, the library keeps
  trying.

      case Tube.resume() do
        :ok -> :open
        {:error, reason} -> Logger.error(Tube.Error.message(reason))
      end
  """
  @doc group: :domain
  @spec resume() :: :ok | {:error, reason}
  def resume, do: Suspension.resume()

  @doc """
  Returns all connected tubes of this VM.

  The list includes tubes that carry distributed Erlang: `info/1` has `mode: :dist`, and `inspect/1`
  shows `distribution`. `send/3` returns `{:error, :distribution}` for them; everything else is only
  for their owner.

      iex> {:ok, me} = Tube.domid()
      iex> {:ok, _listener} = Tube.listen(service: "list")
      iex> {:ok, tube} = Tube.open(me, service: "list")
      iex> tube in Tube.list()
      true
  """
  @doc group: :introspection
  @spec list() :: [t]
  def list, do: for(record <- Connection.Registry.records(), do: record.tube)

  @spec elsewhere!(term) :: no_return
  defp elsewhere!(%__MODULE__{pid: pid}) do
    raise ArgumentError,
          "this tube belongs to node #{inspect(node(pid))}, not to #{inspect(node())}: " <>
            "a tube is valid only in the VM that made it"
  end

  defp elsewhere!(other) do
    raise ArgumentError,
          "#{inspect(other)} is not a tube: allowed is a %Tube{} from open/2 or accept/2"
  end
end
