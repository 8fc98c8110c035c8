defmodule :tube do
  @moduledoc """
  The tubes of [LING](https://github.com/cloudozer/ling), the Erlang VM on bare Xen that had them
  first, as its document `doc/tubes.md` describes them, on top of `Tube`:

      {ok,Tube} = tube:open(5),
      Tube ! {self(),{command,<<"hello">>}},
      receive {Tube,{data,Data}} -> Data end,
      tube:close(Tube).

  A program written for LING has to be compiled with one more option, since its tubes were ports
  and these are processes:

      erlc +'{parse_transform,tube}' chat.erl

  That makes calls of `port_command/2,3`, `port_connect/2` and `port_close/1`, which the VM only takes for
  ports, calls of this module. They take real ports as well.

  ## The same as in LING

    * who opens or accepts a tube owns it, is linked to it, and gets `{Tube, {data, Data}}`
    * `{Owner, {command, Data}}`, `{Owner, {connect, Pid}}` and `{Owner, close}` from the owner; from anyone
      else they are a `badsig`
    * packets arrive whole and in order
    * `accept/0` takes a tube from any domain, `open/2` one number per pair and direction

  ## Different

    * A tube is a pid: `is_port/1` is false of it, `erlang:port_info/1` does not know it.
    * No packet is dropped, unless that is asked for (see below). What does not fit into the ring waits:
      `port_command/2` makes its caller wait, and a `command` message waits in the tube's process. Who
      asks `can_send/1` first keeps the waiting short.
    * Packets may have from 0 to 64 MiB, not 1 to 4096 bytes. `can_send/1` counts packets of 4096 bytes.
    * `close/1` works, and delivers what was sent before.
    * Any number of processes may wait in `can_send/1` at a time.
    * `open/1` waits up to 5 seconds for a domain that does not accept yet, or is not there yet, and then
      says `timeout`. It succeeds when the other side listens, not only when it has called `accept/0`.
    * `accept/0` first makes this VM listen. Before that nobody is let in.
    * Reasons are those of `t:Tube.Error.reason/0`, but `exists` for a number in use and `badarg` for what is
      no domain or number. When the other end goes, the owner gets an exit signal with the reason
      (`normal` for an orderly end).

  ## Settings

  LING has no services; its tubes are to the service `"default"`, so a LING program and
  `Tube.open(5)` understand each other. Options of `Tube.listen/1` for `accept/0` come from the application
  environment, such as the peers that domain 0 has to name: `config :tube, ling: [peers: [5, 7]]`.
  `:service` and `:on_full` there count for `open/1` too. With `on_full: :drop` a packet for which there is no room is
  dropped, as LING did, but counted: `Tube.getstat/1` of the tubes in `Tube.list/0` has it as `:send_dropped`.
  """

  alias Tube.{Connection, Listener, Options}

  @typedoc "What stands for LING's port."
  @type tube :: pid

  @listener Tube.Ling
  @form [mode: :port, active: true]

  @doc """
  Opens the tube number 0 to a domain. Errors are those of `open/2`.

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
    options = @form ++ [tid: tid] ++ Keyword.take(settings(), [:service, :on_full])
    domid |> Tube.open(options) |> answer()
  rescue
    ArgumentError -> {:error, :badarg}
  end

  def open(_domid, _tid), do: {:error, :badarg}

  @doc """
  Waits for a tube that another domain opens, whichever it is.

      {:ok, tube} = :tube.accept()

  Errors are those of `Tube.listen/1`.
  """
  @spec accept() :: {:ok, tube} | {:error, atom}
  def accept do
    with :ok <- listen(), do: @listener |> Tube.accept() |> answer()
  end

  @doc """
  Waits until nothing waits to be sent, then says for how many packets of 4096 bytes there is room: 1 at
  least, since one packet may always wait (but 0 where packets may be dropped). For anyone. Errors: `:closed`.

      {:ok, n} = :tube.can_send(tube)
      for _ <- 1..n, do: send(tube, {self(), {:command, packet}})
  """
  @spec can_send(tube) :: {:ok, non_neg_integer} | {:error, :closed}
  def can_send(tube) when is_pid(tube), do: Connection.call(tube, {:room, :reply})

  @doc """
  The same without waiting: the calling process gets `{:can_send, tube, n}`, or `{:can_send, tube, :closed}`
  if the tube ends before.

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
  Closes a tube, for its owner. What was sent before is delivered. Errors: `:closed`, `:not_owner`.

      :ok = :tube.close(tube)
  """
  @spec close(tube) :: :ok | {:error, :closed | :not_owner}
  def close(tube) when is_pid(tube), do: Connection.call(tube, :close)

  ## What a port takes

  @doc """
  Sends a packet, and waits for room as one who commands a busy port does. For anyone. Raises `badarg` if
  the tube is closed or `data` is not iodata.

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
  The same; with `:nosuspend` false instead of waiting.

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
  Makes `pid` the owner, for the owner. Messages that were delivered before stay where they are. Raises
  `badarg` if the tube is closed, or another's, or `pid` is no live process.

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
  Closes the tube, for its owner. Raises `badarg` if it is closed, or another's.

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
      do: ours(line, name, arguments)

  def parse_transform(
        {:call, line, {:remote, _, {:atom, _, :erlang}, {:atom, _, name}}, arguments},
        _options
      )
      when {name, length(arguments)} in @ports,
      do: ours(line, name, arguments)

  def parse_transform(forms, options) when is_list(forms),
    do: Enum.map(forms, &parse_transform(&1, options))

  def parse_transform(form, options) when is_tuple(form),
    do: form |> Tuple.to_list() |> parse_transform(options) |> List.to_tuple()

  def parse_transform(leaf, _options), do: leaf

  defp ours(line, name, arguments) do
    remote = {:remote, line, {:atom, line, __MODULE__}, {:atom, line, name}}
    {:call, line, remote, parse_transform(arguments, [])}
  end

  defp busy?(tube) do
    with [{:tube, id} | _] <-
           for({:tube, _} = key <- Registry.keys(Tube.Registry, tube), do: key),
         {:ok, %{tx: tx}} <- Tube.Native.info(id) do
      tx.ring - tx.backlog < 4096 + 8
    else
      # Closed: let the command say so.
      _gone -> false
    end
  end

  # Listened to from the first accept on, by nobody in particular: whoever calls may end.
  defp listen do
    options = @form |> Keyword.merge(settings()) |> Options.validate!(:listen)
    start = [{Process.whereis(Tube.Supervisor), options}, [name: @listener]]
    child = %{id: @listener, start: {Listener, :start_link, start}, restart: :temporary}

    case DynamicSupervisor.start_child(Tube.Listeners, child) do
      {:ok, _pid} -> :ok
      {:error, {:already_started, _pid}} -> :ok
      {:error, {:shutdown, reason}} -> answer({:error, reason})
    end
  end

  defp settings, do: Application.get_env(:tube, :ling, [])

  defp answer({:ok, %Tube{pid: pid}}), do: {:ok, pid}
  defp answer({:error, :eexist}), do: {:error, :exists}
  defp answer({:error, {reason, _text}}), do: {:error, reason}
  defp answer({:error, reason}), do: {:error, reason}
end
