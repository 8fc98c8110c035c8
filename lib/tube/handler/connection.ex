defmodule Tube.Handler.Connection do
  @moduledoc false
  # One accepted tube of a handler: owns it, and turns what comes into callbacks.
  #
  # It is started without its tube, since only a process that exists can be made an owner; the
  # acceptor hands the tube over and then says so by `serve/3`.

  use GenServer, restart: :temporary

  alias Tube.Handler.Settings

  # `timer` names the time limit that runs, if one does.
  defstruct [:settings, :tube, :state, :timer, over: false]

  @spec start_link(Settings.t()) :: GenServer.on_start()
  def start_link(settings), do: GenServer.start_link(__MODULE__, settings)

  @doc false
  @spec child_spec(Settings.t()) :: Supervisor.child_spec()
  def child_spec(settings) do
    %{
      id: __MODULE__,
      start: {__MODULE__, :start_link, [settings]},
      restart: :temporary,
      # Its own limit is kept by itself; this one is for a callback that does not come back.
      shutdown: settings.shutdown + 1_000
    }
  end

  @doc "The tube is yours now."
  @spec serve(pid, Tube.t()) :: :ok
  def serve(pid, tube), do: GenServer.cast(pid, {:serve, tube})

  @impl true
  def init(settings) do
    # So that `terminate/2` is called when the supervisor stops us.
    Process.flag(:trap_exit, true)
    {:ok, %__MODULE__{settings: settings, state: settings.state}}
  end

  @impl true
  def handle_cast({:serve, tube}, connection) do
    with {:ok, peer} <- Tube.peer(tube) do
      Logger.metadata(tube: inspect(tube), peer_domid: peer.domid, service: peer.service)
    end

    connection = %{connection | tube: tube}

    case call(connection, :handle_connection, [tube]) do
      {:noreply, connection} -> {:noreply, listen(connection)}
      stop -> stop
    end
  end

  @impl true
  def handle_info({:tube, tube, data}, %{tube: tube} = connection),
    do: connection |> call(:handle_data, [data, tube]) |> listen_again()

  # The count is used up: the next one, so that no more than one count ever waits in the mailbox.
  def handle_info({:tube_passive, tube}, %{tube: tube} = connection),
    do: {:noreply, listen(connection)}

  def handle_info({:tube_closed, tube}, %{tube: tube} = connection),
    do: finish(connection, :handle_close, [tube])

  def handle_info({:tube_error, tube, reason}, %{tube: tube} = connection),
    do: finish(connection, :handle_error, [reason, tube])

  def handle_info({:idle, ref}, %{timer: ref, tube: tube} = connection),
    do: call(connection, :handle_timeout, [tube])

  # Something came in the same moment.
  def handle_info({:idle, ref}, connection) when is_reference(ref), do: {:noreply, connection}

  # Before there is a tube there is nobody to ask.
  def handle_info(_message, %{tube: nil} = connection), do: {:noreply, connection}

  def handle_info(message, %{tube: tube} = connection),
    do: call(connection, :handle_info, [message, tube])

  @impl true
  def terminate(_reason, %{tube: nil}), do: :ok

  def terminate(_reason, %{over: true, tube: tube}) do
    Tube.close(tube)
    :ok
  end

  def terminate(reason, %{tube: tube} = connection) do
    if shutdown?(reason) do
      connection = drain(connection, deadline(connection.settings.shutdown))
      unless connection.over, do: tell(connection, :handle_shutdown, [tube])
    else
      tell(connection, :handle_error, [plain(reason), tube])
    end

    Tube.close(tube)
    :ok
  end

  # Of the end of :once there is no word.
  defp listen_again({:noreply, %{settings: %{active: :once}} = connection}),
    do: {:noreply, listen(connection)}

  defp listen_again(result), do: result

  defp listen(connection) do
    # An orderly end that came while the tube was passive is told by nothing else.
    with {:error, :closed} <- Tube.setopts(connection.tube, active: connection.settings.active),
         do: send(self(), {:tube_closed, connection.tube})

    connection
  end

  ## Callbacks

  defp call(connection, name, arguments) do
    # A limit that ran was for this to come.
    connection = %{connection | timer: nil}

    case result(connection, name, arguments) do
      {:continue, state} ->
        {:noreply, %{connection | state: state}}

      {:continue, state, timeout} ->
        {:noreply, limit(%{connection | state: state}, timeout)}

      {:close, state} ->
        finish(%{connection | state: state}, :handle_close, [connection.tube])

      {:error, why, state} ->
        finish(%{connection | state: state}, :handle_error, [why, connection.tube])
    end
  end

  defp limit(connection, :infinity), do: connection

  defp limit(connection, ms) do
    ref = make_ref()
    Process.send_after(self(), {:idle, ref}, ms)
    %{connection | timer: ref}
  end

  defp result(%{settings: settings, state: state}, name, arguments) do
    if settings.callbacks[name] do
      settings.handler |> apply(name, arguments ++ [state]) |> check!(settings, name, arguments)
    else
      default(name, state)
    end
  end

  defp default(:handle_timeout, state), do: {:close, state}
  defp default(_name, state), do: {:continue, state}

  defp check!({:continue, _state} = result, _settings, _name, _arguments), do: result

  defp check!({:continue, _state, timeout} = result, _settings, _name, _arguments)
       when timeout == :infinity or (is_integer(timeout) and timeout >= 0),
       do: result

  defp check!({:close, _state} = result, _settings, _name, _arguments), do: result
  defp check!({:error, _reason, _state} = result, _settings, _name, _arguments), do: result

  defp check!(other, settings, name, arguments) do
    raise ArgumentError,
          "#{inspect(settings.handler)}.#{name}/#{length(arguments) + 1} returned #{inspect(other)}: " <>
            "allowed are {:continue, state}, {:continue, state, timeout}, {:close, state} and " <>
            "{:error, reason, state}"
  end

  # From here on nothing is called but this, whatever else is in the mailbox.
  defp finish(connection, name, arguments) do
    connection = %{connection | over: true}
    tell(connection, name, arguments)
    {:stop, :normal, connection}
  end

  defp tell(%{settings: settings, state: state}, name, arguments) do
    if settings.callbacks[name], do: apply(settings.handler, name, arguments ++ [state])
    :ok
  end

  ## Ending in good order

  # What the peer had sent before is handled: first what is in the mailbox, then what is in the ring.
  defp drain(connection, deadline) do
    Tube.setopts(connection.tube, active: false)
    drain_on({:noreply, connection}, deadline)
  end

  defp drain_on({:stop, _reason, connection}, _deadline), do: connection

  defp drain_on(going_on, deadline) do
    connection = elem(going_on, 1)

    with true <- System.monotonic_time(:millisecond) < deadline,
         {:ok, message} <- waiting(connection.tube) do
      message |> drained(connection) |> drain_on(deadline)
    else
      _nothing_more -> connection
    end
  end

  # As ever, but for becoming active again.
  defp drained({:tube, tube, data}, connection), do: call(connection, :handle_data, [data, tube])
  defp drained(the_end, connection), do: handle_info(the_end, connection)

  defp waiting(tube) do
    receive do
      {:tube, ^tube, _data} = message -> {:ok, message}
      {:tube_closed, ^tube} = message -> {:ok, message}
      {:tube_error, ^tube, _reason} = message -> {:ok, message}
    after
      0 ->
        case Tube.recv(tube, 0) do
          {:ok, data} -> {:ok, {:tube, tube, data}}
          {:error, :timeout} -> :nothing
          {:error, :closed} -> {:ok, {:tube_closed, tube}}
          {:error, reason} -> {:ok, {:tube_error, tube, reason}}
        end
    end
  end

  defp deadline(ms), do: System.monotonic_time(:millisecond) + ms

  defp shutdown?(:shutdown), do: true
  defp shutdown?({:shutdown, _why}), do: true
  defp shutdown?(reason), do: reason == :normal

  # An exception as itself, without its stack.
  defp plain({reason, stack}) when is_list(stack), do: Exception.normalize(:error, reason, stack)
  defp plain(reason), do: reason
end
