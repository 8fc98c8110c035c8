defmodule Tube.Supervisor do
  @moduledoc false
  # The library's supervision tree. All its processes are idle until the first tube or listener:
  # starting them neither attaches to a platform nor starts a hub.
  #
  #     Tube.Supervisor (rest_for_one)
  #     ├── Tube.Registry             tubes by number, and the numbers that nocks have taken
  #     ├── Tube.Domain.Server        this VM as a domain: platform, store connection, re-attaching
  #     ├── Tube.Connections          a process per tube
  #     ├── Tube.Listener.Dispatcher  accepts open requests
  #     ├── Tube.Listeners            a process per service
  #     └── Tube.Stats.Publisher      publishes counters on request
  #
  # The tree belongs to the application, unless distribution over tubes starts first: the kernel
  # starts distribution before any application. Then nothing is linked to the tree, so that neither
  # the end of distribution (`Node.stop/0`) nor the end of the application closes the other's tubes,
  # and the application only watches over it.

  use GenServer

  @doc "Starts the tree, linked to the caller."
  @spec start_link() :: Supervisor.on_start()
  def start_link do
    children = [
      Tube.Connection.Registry,
      Tube.Domain.Server,
      {DynamicSupervisor, name: Tube.Connections, strategy: :one_for_one},
      Tube.Listener.Dispatcher,
      {DynamicSupervisor, name: Tube.Listeners, strategy: :one_for_one},
      Tube.Stats.Publisher
    ]

    Supervisor.start_link(children, strategy: :rest_for_one, name: Tube.Supervisor)
  end

  @doc "Starts the tree, linked to no process, unless it is already running."
  @spec ensure_started() :: :ok | {:error, term}
  def ensure_started do
    if Process.whereis(Tube.Supervisor), do: :ok, else: start_unlinked()
  end

  # A supervisor needs a parent that starts it. This parent unlinks itself and ends at once.
  defp start_unlinked do
    caller = self()
    tag = make_ref()

    {_pid, monitor} =
      spawn_monitor(fn ->
        Process.flag(:trap_exit, true)

        with {:ok, supervisor} <- start_link() do
          Process.unlink(supervisor)
          send(caller, {tag, :ok})
        else
          {:error, {:already_started, _supervisor}} -> send(caller, {tag, :ok})
          error -> send(caller, {tag, error})
        end
      end)

    receive do
      {^tag, result} ->
        Process.demonitor(monitor, [:flush])
        result

      {:DOWN, ^monitor, :process, _pid, reason} ->
        {:error, reason}
    end
  end

  ## For the application, when distribution has started the tree

  @doc "Watches over an unlinked tree: ends when the tree ends, so that both are restarted."
  @spec watch() :: GenServer.on_start()
  def watch, do: GenServer.start_link(__MODULE__, nil)

  @impl true
  def init(nil) do
    with :ok <- ensure_started() do
      {:ok, Process.monitor(Tube.Supervisor)}
    else
      {:error, reason} -> {:stop, reason}
    end
  end

  @impl true
  def handle_info({:DOWN, monitor, :process, _name, reason}, monitor),
    do: {:stop, {:supervisor_down, reason}, monitor}

  def handle_info(_other, monitor), do: {:noreply, monitor}
end
