defmodule Tube.Handler.Connection do
  @moduledoc false
  # The process of one accepted tube: owns the tube, and calls the handler's callbacks.
  #
  # It starts without its tube, because only an existing process can become an owner. The acceptor
  # hands the tube over, and then calls `serve/2`.

  use GenServer, restart: :temporary

  alias Tube.Handler.Settings

  # `timer` is the reference of the running time limit, if there is one.
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
      # The process keeps its own limit; this one is for a callback that does not return.
      shutdown: settings.shutdown + 1_000
    }
  end

  @doc "Starts serving `tube`, which the process owns by now."
  @spec serve(pid, Tube.t()) :: :ok
  def serve(pid, tube), do: GenServer.cast(pid, {:serve, tube})

  @impl true
  def init(settings) do
    # So that `terminate/2` is called when the supervisor stops this process.
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
      {:noreply, connection} -> {:noreply, activate(connection)}
      stop -> stop
    end
  end

  @impl true
  def handle_info({:tube, tube, data}, %{tube: tube} = connection),
    do: connection |> call(:handle_data, [data, tube]) |> reactivate()

  # The count is used up. Renewing it only now bounds the mailbox to one count of messages.
  def handle_info({:tube_passive, tube}, %{tube: tube} = connection),
    do: {:noreply, activate(connection)}

  def handle_info({:tube_closed, tube}, %{tube: tube} = connection),
    do: finish(connection, :handle_close, [tube])

  def handle_info({:tube_error, tube, reason}, %{tube: tube} = connection),
    do: finish(connection, :handle_error, [reason, tube])

  def handle_info({:idle, ref}, %{timer: ref, tube: tube} = connection),
    do: call(connection, :handle_timeout, [tube])

  # A limit that another message has cancelled.
  def handle_info({:idle, ref}, connection) when is_reference(ref), do: {:noreply, connection}

  # The callback needs a tube.
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
      unless connection.over, do: call_last(connection, :handle_shutdown, [tube])
    else
      call_last(connection, :handle_error, [without_stack(reason), tube])
    end

    Tube.close(tube)
    :ok
  end

  # No message says that :once is used up.
  defp reactivate({:noreply, %{settings: %{active: :once}} = connection}),
    do: {:noreply, activate(connection)}

  defp reactivate(result), do: result

  defp activate(connection) do
    # Only this call reports an orderly end that came while the tube was passive.
    with {:error, :closed} <- Tube.setopts(connection.tube, active: connection.settings.active),
         do: send(self(), {:tube_closed, connection.tube})

    connection
  end

  ## Callbacks

  defp call(connection, name, arguments) do
    connection = %{connection | timer: nil}

    case result(connection, name, arguments) do
      {:continue, state} ->
        {:noreply, %{connection | state: state}}

      {:continue, state, timeout} ->
        {:noreply, limit(%{connection | state: state}, timeout)}

      {:close, state} ->
        finish(%{connection | state: state}, :handle_close, [connection.tube])

      {:error, reason, state} ->
        finish(%{connection | state: state}, :handle_error, [reason, connection.tube])
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

  # The last callback, whatever else is in the mailbox.
  defp finish(connection, name, arguments) do
    connection = %{connection | over: true}
    call_last(connection, name, arguments)
    {:stop, :normal, connection}
  end

  # Calls a callback whose result is ignored.
  defp call_last(%{settings: settings, state: state}, name, arguments) do
    if settings.callbacks[name], do: apply(settings.handler, name, arguments ++ [state])
    :ok
  end

  ## Orderly shutdown

  # Handles the messages that have arrived: those in the mailbox, then those in the ring.
  defp drain(connection, deadline) do
    Tube.setopts(connection.tube, active: false)
    drain_loop({:noreply, connection}, deadline)
  end

  defp drain_loop({:stop, _reason, connection}, _deadline), do: connection

  defp drain_loop(noreply, deadline) do
    connection = elem(noreply, 1)

    with true <- System.monotonic_time(:millisecond) < deadline,
         {:ok, message} <- next(connection.tube) do
      message |> drain_one(connection) |> drain_loop(deadline)
    else
      _nothing_more -> connection
    end
  end

  # Like `handle_info/2`, but the tube stays passive.
  defp drain_one({:tube, tube, data}, connection),
    do: call(connection, :handle_data, [data, tube])

  defp drain_one(the_end, connection), do: handle_info(the_end, connection)

  defp next(tube) do
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
  defp shutdown?({:shutdown, _reason}), do: true
  defp shutdown?(reason), do: reason == :normal

  # The exception of a crash, without its stack trace.
  defp without_stack({reason, stack}) when is_list(stack),
    do: Exception.normalize(:error, reason, stack)

  defp without_stack(reason), do: reason
end
