defmodule Tube.Handler.Acceptor do
  @moduledoc false
  # Accepts tubes from a handler's listener and starts a connection for each. One acceptor is
  # enough: each handshake runs in a process of its own.
  #
  # At the limit of connections it stops accepting. Then the listener's backlog fills up, and
  # further peers get `:busy`.

  alias Tube.Handler.Connection

  @doc false
  def child_spec(args),
    do: %{id: __MODULE__, start: {__MODULE__, :start_link, [args]}, shutdown: :brutal_kill}

  @doc "Starts an acceptor. The functions return the listener and the supervisor of connections."
  @spec start_link({fun, fun, Tube.Handler.Settings.t()}) :: {:ok, pid}
  def start_link({listener, connections, settings}) do
    {:ok,
     :proc_lib.spawn_link(fn ->
       connections = connections.()
       # After a restart, connections of the previous acceptor count too.
       for {_, pid, _, _} <- DynamicSupervisor.which_children(connections),
           is_pid(pid),
           do: Process.monitor(pid)

       accept(listener.(), connections, settings)
     end)}
  end

  defp accept(listener, connections, settings) do
    await_room(connections, settings.max_connections)

    case Tube.accept(listener) do
      {:ok, tube} ->
        start_connection(tube, connections, settings)
        accept(listener, connections, settings)

      # The listener has ended. The supervisor restarts it, and this process with it.
      {:error, reason} ->
        exit({:shutdown, reason})
    end
  end

  defp start_connection(tube, connections, settings) do
    {:ok, pid} = DynamicSupervisor.start_child(connections, {Connection, settings})
    Process.monitor(pid)

    case Tube.controlling_process(tube, pid) do
      :ok ->
        Connection.serve(pid, tube)

      # The tube has ended in the meantime.
      {:error, _reason} ->
        DynamicSupervisor.terminate_child(connections, pid)
        Tube.close(tube)
    end
  end

  defp await_room(connections, max) do
    forget_ended()

    if DynamicSupervisor.count_children(connections).active >= max do
      receive do: ({:DOWN, _monitor, :process, _pid, _reason} -> await_room(connections, max))
    end
  end

  defp forget_ended do
    receive do
      {:DOWN, _monitor, :process, _pid, _reason} -> forget_ended()
    after
      0 -> :ok
    end
  end
end
