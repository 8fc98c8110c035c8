defmodule Tube.Supervisor do
  @moduledoc false
  # The processes of the library. All of them idle until the first tube or listener: starting them
  # neither attaches to a platform nor starts a hub.
  #
  #     Tube.Supervisor (rest_for_one)
  #     ├── Tube.Registry      tubes by number, and the numbers that nocks have taken
  #     ├── Tube.Domain.Server  this VM as a domain: platform, store connection, re-attaching
  #     ├── Tube.Connections   a process per tube
  #     ├── Tube.Listener.Dispatcher  lets open requests in
  #     ├── Tube.Listeners     a process per service listened to
  #     └── Tube.Stats.Publisher  shows counters to whoever looks from outside
  #
  # They belong to the application, unless distribution over tubes came first: the kernel starts that
  # before any application. Then they belong to nobody, so that neither the end of distribution
  # (`Node.stop/0`) nor that of the application takes the other's tubes along, and the application
  # only watches over them.

  use GenServer

  @doc "Starts the processes, linked to the caller."
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

  @doc "Makes sure that they run, tied to nobody."
  @spec ensure_started() :: :ok | {:error, term}
  def ensure_started do
    if Process.whereis(Tube.Supervisor), do: :ok, else: start_alone()
  end

  # A supervisor must have somebody who started it; here that process ends at once.
  defp start_alone do
    caller = self()
    tag = make_ref()

    {_pid, monitor} =
      spawn_monitor(fn ->
        Process.flag(:trap_exit, true)

        with {:ok, tree} <- start_link() do
          Process.unlink(tree)
          send(caller, {tag, :ok})
        else
          {:error, {:already_started, _tree}} -> send(caller, {tag, :ok})
          error -> send(caller, {tag, error})
        end
      end)

    receive do
      {^tag, answer} ->
        Process.demonitor(monitor, [:flush])
        answer

      {:DOWN, ^monitor, :process, _pid, reason} ->
        {:error, reason}
    end
  end

  ## For the application: stands for a tree that is not its own

  @doc "Watches over a tree that belongs to nobody: when it ends, so does this, to begin anew."
  @spec watch(term) :: GenServer.on_start()
  def watch(_), do: GenServer.start_link(__MODULE__, nil)

  @impl true
  def init(nil) do
    with :ok <- ensure_started() do
      {:ok, Process.monitor(Tube.Supervisor)}
    else
      {:error, reason} -> {:stop, reason}
    end
  end

  @impl true
  def handle_info({:DOWN, monitor, :process, _tree, reason}, monitor),
    do: {:stop, {:tree, reason}, monitor}

  def handle_info(_other, monitor), do: {:noreply, monitor}
end
