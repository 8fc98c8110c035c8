defmodule :tube do
  @moduledoc """
  The API of the original tubes, those of [LING](https://github.com/cloudozer/ling), the Erlang VM
  on bare Xen, as its document `doc/tubes.md` describes it, implemented with `Tube`:

      {ok,Tube} = tube:open(5),
      Tube ! {self(),{command,<<"hello">>}},
      receive {Tube,{data,Data}} -> Data end,
      tube:close(Tube).

  Compile a program written for LING with one more option, because LING's tubes were ports and these
  are processes:

      erlc +'{parse_transform,tube}' chat.erl

  The option redirects calls of `port_command/2,3`, `port_connect/2` and `port_close/1`, for which
  the VM accepts only ports, to this module. Here they accept real ports as well.

  ## The same as in LING

    * the process that opens or accepts a tube owns it, is linked to it, and gets
      `{Tube, {data, Data}}`
    * the owner may send `{Owner, {command, Data}}`, `{Owner, {connect, Pid}}` and `{Owner, close}`;
      from any other process they are a `badsig`
    * packets arrive whole and in order
    * `accept/0` takes a tube from any domain; `open/2` takes a number per pair and direction

  ## Different

    * A tube is a pid: `is_port/1` returns false, `erlang:port_info/1` does not know it.
    * By default no packet is dropped (see below). Data that does not fit into the ring waits:
      `port_command/2` makes its caller wait, and a `command` message waits in the tube's process.
      Call `can_send/1` first to keep the wait short.
    * Packets may have 0 bytes to 64 MiB, not 1 to 4096 bytes. `can_send/1` counts packets of 4096
      bytes.
    * `close/1` works, and delivers the packets sent before.
    * Any number of processes may wait in `can_send/1` at a time.
    * `open/1` waits up to 5 seconds for a domain that does not accept or does not exist yet, and
      then returns `timeout`. It succeeds when the other side listens, even before it calls
      `accept/0`.
    * The first `accept/0` makes this VM listen. Before that, nobody can open a tube to it.
    * Reasons are those of `t:Tube.Error.reason/0`, but `exists` for a number in use and `badarg`
      for an invalid domain or number. When the other end goes, the owner gets an exit signal with
      the reason (`normal` for an orderly end).

  ## Settings

  LING has no services. Its tubes use the service `"default"`, so a LING program and `Tube.open(5)`
  can talk to each other. Options of `Tube.listen/1` for `accept/0` come from the application
  environment, such as the peers that domain 0 has to name: `config :tube, ling: [peers: [5, 7]]`.
  `:service` and `:on_full` there also apply to `open/1`. With `on_full: :drop` a packet is dropped
  when there is no room, as in LING, but counted: see `:send_dropped` in `Tube.getstat/1`, for the
  tubes of `Tube.list/0`.
  """

  alias Tube.{Connection, Listener, Options}

  @typedoc "A tube, where LING has a port."
  @type tube :: pid

  @listener Tube.Ling
  @as_port [mode: :port, active: true]

  @doc """
  Opens tube number 0 to a domain. Errors are those of `open/2`.

      {:ok, tube} = :tube.open(5)
  """
  @spec open(Tube.domid()) :: {:ok, tube} | {:error, atom}
  def open(domid), do: open(domid, 0)

  @doc """
  Opens a tube to a domain; `tid` numbers the tubes that this domain opens to that one.

  Errors: `:exists`, `:badarg`, `:timeout`, `:refused`, `:busy`, and others of `Tube.open/2`.

      iex> :tube.open(-1, 0)
      {:error, :badarg}
  """
  @spec open(Tube.domid(), 0..0xFFFFFFFF) :: {:ok, tube} | {:error, atom}
  def open(domid, tid) when is_integer(domid) and is_integer(tid) do
    options = @as_port ++ [tid: tid] ++ Keyword.take(settings(), [:service, :on_full])
    domid |> Tube.open(options) |> result()
  rescue
    ArgumentError -> {:error, :badarg}
  end

  def open(_domid, _tid), do: {:error, :badarg}

  @doc """
  Waits for a tube from any domain.

      {:ok, tube} = :tube.accept()

  Errors are those of `Tube.listen/1`.
  """
  @spec accept() :: {:ok, tube} | {:error, atom}
  def accept do
    with :ok <- listen(), do: @listener |> Tube.accept() |> result()
  end

  @doc """
  Waits until all waiting packets are sent, then returns for how many packets of 4096 bytes there is
  room: at least 1, because one packet may always wait (but 0 with `on_full: :drop`). For any
  process. Errors: `:closed`.

      {:ok, n} = :tube.can_send(tube)
      for _ <- 1..n, do: send(tube, {self(), {:command, packet}})
  """
  @spec can_send(tube) :: {:ok, non_neg_integer} | {:error, :closed}
  def can_send(tube) when is_pid(tube), do: Connection.call(tube, {:room, :reply})

  @doc """
  Like `can_send/1` without waiting: the calling process later gets `{:can_send, tube, n}`, or
  `{:can_send, tube, :closed}` if the tube ends first.

      :ok = :tube.can_send_async(tube)
      receive do {:can_send, ^tube, n} -> n end
  """
  @spec can_send_async(tube) :: :ok
  def can_send_async(tube) when is_pid(tube) do
    with {:error, :closed} <- Connection.call(tube, {:room, {:send, self()}}),
         do: send(self(), {:can_send, tube, :closed})

    :ok
  end

  @doc """
  Closes a tube. Only for the owner. Packets sent before are delivered. Errors: `:closed`,
  `:not_owner`.

      :ok = :tube.close(tube)
  """
  @spec close(tube) :: :ok | {:error, :closed | :not_owner}
  def close(tube) when is_pid(tube), do: Connection.call(tube, :close)

  ## Functions for ports

  @doc """
  Sends a packet, and waits for room, as with a busy port. For any process. Raises `badarg` if the
  tube is closed or `data` is not iodata.

      true = :tube.port_command(tube, ["some ", "data"])
  """
  @spec port_command(tube | port, iodata) :: true
  def port_command(tube, data) when is_pid(tube) do
    case Connection.call(tube, {:command, IO.iodata_to_binary(data)}) do
      {:ok, _room} -> true
      {:error, reason} -> raise ArgumentError, Tube.Error.message(reason)
    end
  end

  def port_command(port, data), do: :erlang.port_command(port, data)

  @doc """
  Like `port_command/2`; with `:nosuspend` it returns false instead of waiting.

      :tube.port_command(tube, "a sample", [:nosuspend])
  """
  @spec port_command(tube | port, iodata, [:force | :nosuspend]) :: boolean
  def port_command(tube, data, options) when is_pid(tube) do
    cond do
      :nosuspend not in options -> port_command(tube, data)
      busy?(tube) -> false
      true -> port_command(tube, data)
    end
  end

  def port_command(port, data, options), do: :erlang.port_command(port, data, options)

  @doc """
  Makes `pid` the owner. Only for the owner. Messages that were already delivered stay where they
  are. Raises `badarg` if the tube is closed, the caller does not own it, or `pid` is not alive.

      true = :tube.port_connect(tube, worker)
  """
  @spec port_connect(tube | port, pid) :: true
  def port_connect(tube, pid) when is_pid(tube) and is_pid(pid) do
    case Connection.call(tube, {:give, pid, :initial}) do
      :ok -> true
      {:error, reason} -> raise ArgumentError, Tube.Error.message(reason)
    end
  end

  def port_connect(port, pid), do: :erlang.port_connect(port, pid)

  @doc """
  Closes the tube. Only for the owner. Raises `badarg` if it is closed, or the caller does not own
  it.

      true = :tube.port_close(tube)
  """
  @spec port_close(tube | port) :: true
  def port_close(tube) when is_pid(tube) do
    case close(tube) do
      :ok -> true
      {:error, reason} -> raise ArgumentError, Tube.Error.message(reason)
    end
  end

  def port_close(port), do: :erlang.port_close(port)

  @ports [port_command: 2, port_command: 3, port_connect: 2, port_close: 1]

  @doc false
  @spec parse_transform(list, list) :: list
  def parse_transform({:call, line, {:atom, _, name}, arguments}, _options)
      when {name, length(arguments)} in @ports,
      do: redirect(line, name, arguments)

  def parse_transform(
        {:call, line, {:remote, _, {:atom, _, :erlang}, {:atom, _, name}}, arguments},
        _options
      )
      when {name, length(arguments)} in @ports,
      do: redirect(line, name, arguments)

  def parse_transform(forms, options) when is_list(forms),
    do: Enum.map(forms, &parse_transform(&1, options))

  def parse_transform(form, options) when is_tuple(form),
    do: form |> Tuple.to_list() |> parse_transform(options) |> List.to_tuple()

  def parse_transform(leaf, _options), do: leaf

  defp redirect(line, name, arguments) do
    remote = {:remote, line, {:atom, line, __MODULE__}, {:atom, line, name}}
    {:call, line, remote, parse_transform(arguments, [])}
  end

  defp busy?(tube) do
    with [{:tube, id} | _] <-
           for({:tube, _} = key <- Registry.keys(Tube.Registry, tube), do: key),
         {:ok, %{tx: tx}} <- Tube.Native.info(id) do
      tx.ring - tx.backlog < 4096 + 8
    else
      # Closed: the command reports it.
      _gone -> false
    end
  end

  # The first accept starts the listener, which outlives its caller.
  defp listen do
    options = @as_port |> Keyword.merge(settings()) |> Options.validate!(:listen)
    start = [{Process.whereis(Tube.Supervisor), options}, [name: @listener]]
    child = %{id: @listener, start: {Listener, :start_link, start}, restart: :temporary}

    case DynamicSupervisor.start_child(Tube.Listeners, child) do
      {:ok, _pid} -> :ok
      {:error, {:already_started, _pid}} -> :ok
      {:error, {:shutdown, reason}} -> result({:error, reason})
    end
  end

  defp settings, do: Application.get_env(:tube, :ling, [])

  defp result({:ok, %Tube{pid: pid}}), do: {:ok, pid}
  defp result({:error, :eexist}), do: {:error, :exists}
  defp result({:error, {reason, _text}}), do: {:error, reason}
  defp result({:error, reason}), do: {:error, reason}
end
