defmodule Tube.Listener do
  @moduledoc false
  # The process of one service: a queue of tubes ready to be accepted, and a queue of callers that
  # wait to accept one.
  #
  # It owns each tube until a caller accepts it. It registers with the dispatcher, which lets open
  # requests for its service in, and it ends with the process that listens.

  use GenServer, restart: :temporary

  alias Tube.{Connection, Label}
  alias Tube.Listener.Dispatcher

  defstruct [:owner, :options, ready: :queue.new(), waiting: :queue.new(), monitors: %{}]

  @type reason :: Tube.Error.reason()

  @doc "Starts a listener for the calling process."
  @spec open(Tube.Options.t()) :: {:ok, pid} | {:error, reason}
  def open(options) do
    case DynamicSupervisor.start_child(Tube.Listeners, {__MODULE__, {self(), options}}) do
      {:error, {:shutdown, reason}} -> {:error, reason}
      started -> started
    end
  end

  def start_link(args, options \\ []), do: GenServer.start_link(__MODULE__, args, options)

  @doc """
  Starts a listener that is linked to the calling process, its owner, as supervisors start
  processes. `options` are those of `GenServer.start_link/3`.
  """
  @spec link(Tube.Options.t(), GenServer.options()) :: GenServer.on_start()
  def link(listen, options) do
    case start_link({self(), listen}, options) do
      {:error, {:shutdown, reason}} -> {:error, reason}
      started -> started
    end
  end

  @doc "Returns the oldest ready tube, now owned by the calling process."
  @spec accept(GenServer.server(), timeout) :: {:ok, Tube.t()} | {:error, reason}
  def accept(listener, timeout) do
    # The listener keeps the time limit, so that it hands no tube to a caller that gave up.
    GenServer.call(listener, {:accept, timeout}, :infinity)
  catch
    :exit, _gone -> {:error, :closed}
  end

  @impl true
  def init({owner, options}) do
    Process.flag(:trap_exit, true)

    case Dispatcher.add(options, owner) do
      :ok ->
        Process.monitor(owner)
        Label.set({:tube_listener, options.service})
        {:ok, %__MODULE__{owner: owner, options: options}}

      {:error, reason} ->
        {:stop, {:shutdown, reason}}
    end
  end

  @impl true
  def handle_call({:accept, timeout}, {caller, _tag} = from, state) do
    monitor = Process.monitor(caller)
    timer = if is_integer(timeout), do: Process.send_after(self(), {:limit, monitor}, timeout)
    waiting = :queue.in({monitor, from, timer}, state.waiting)
    {:noreply, match(%{state | waiting: waiting})}
  end

  # From the dispatcher: is there room for one more tube that waits to be accepted?
  def handle_call(:room?, _from, state) do
    {:reply, :queue.len(state.ready) < state.options.backlog, state}
  end

  @impl true
  # From the process of a tube that has just been connected.
  def handle_info({:tube_ready, tube}, state) do
    monitor = Process.monitor(tube.pid)
    monitors = Map.put(state.monitors, monitor, tube)
    ready = :queue.in({monitor, tube}, state.ready)
    {:noreply, match(%{state | ready: ready, monitors: monitors})}
  end

  def handle_info({:DOWN, _ref, :process, owner, _reason}, %{owner: owner} = state),
    do: {:stop, :normal, state}

  def handle_info({:DOWN, ref, :process, _pid, _reason}, state) do
    # Either a tube that ended before it was accepted, or a caller that ended while it waited.
    {tube, monitors} = Map.pop(state.monitors, ref)
    drop = fn queue -> :queue.filter(&(elem(&1, 0) != ref), queue) end

    if tube,
      do: {:noreply, %{state | ready: drop.(state.ready), monitors: monitors}},
      else: {:noreply, %{state | waiting: drop.(state.waiting)}}
  end

  def handle_info({:limit, monitor}, state) do
    case Enum.find(:queue.to_list(state.waiting), &(elem(&1, 0) == monitor)) do
      nil ->
        {:noreply, state}

      {^monitor, from, _timer} ->
        Process.demonitor(monitor, [:flush])
        GenServer.reply(from, {:error, :timeout})
        {:noreply, %{state | waiting: :queue.filter(&(elem(&1, 0) != monitor), state.waiting)}}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  # Hands the oldest ready tube to the oldest caller. A tube that ends meanwhile is skipped.
  defp match(state) do
    with {{:value, {tube_monitor, tube}}, ready} <- :queue.out(state.ready),
         {{:value, {monitor, {caller, _} = from, timer}}, waiting} <- :queue.out(state.waiting) do
      Process.demonitor(tube_monitor, [:flush])
      state = %{state | ready: ready, monitors: Map.delete(state.monitors, tube_monitor)}

      case Connection.hand_over(tube, caller) do
        :ok ->
          Process.demonitor(monitor, [:flush])
          if timer, do: Process.cancel_timer(timer)
          GenServer.reply(from, {:ok, tube})
          match(%{state | waiting: waiting})

        {:error, _gone} ->
          match(state)
      end
    else
      {:empty, _} -> state
    end
  end
end
