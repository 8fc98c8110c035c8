defmodule Tube.Domain.Server do
  @moduledoc false
  # The process behind `Tube.Domain`: attaches on demand, notices a loss, attaches again.
  #
  # Attaching may start a program, and a hub may hang. A separate process does it, so that this one
  # always replies.

  use GenServer

  alias Tube.Domain
  alias Tube.Domain.{AttachTask, ExclusiveClaim, Settings, State}
  alias Tube.{Native, Paths, Xenstore}
  alias Tube.Handshake.Directory
  alias Tube.Xenstore.{Client, Stream}

  require Logger

  # One attempt may start a hub (10 s), which then has to reply (5 s).
  @attempt_ms 20_000

  # Between attempts, doubling. All VMs of a host lose their hub at the same moment; jitter keeps
  # them from coming back at the same moment.
  @pause_ms 20
  @pause_max_ms 5_000

  @doc "Starts the process. `:name` is for tests with several domains in one VM."
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts \\ []) do
    GenServer.start_link(__MODULE__, nil, Keyword.validate!(opts, name: Domain))
  end

  @impl true
  def init(_none) do
    Process.flag(:trap_exit, true)
    {:ok, %State{}}
  end

  @held {:suspended, "tubes are suspended until Tube.resume/0 is called"}

  @impl true
  def handle_call({:attach, _opts}, _from, %{held: true} = state),
    do: {:reply, {:error, @held}, state}

  def handle_call({:attach, []}, _from, %{phase: :attached} = state),
    do: {:reply, {:ok, state.domain}, state}

  def handle_call({:attach, opts}, from, state) do
    case Settings.resolve(opts) do
      {:ok, settings} ->
        # Only explicit options must agree: the environment may have changed since.
        named = for {key, value} <- opts, value != nil, do: key
        attach_as(settings, {from, Map.take(settings, named)}, state)

      {:error, _} = error ->
        {:reply, error, state}
    end
  rescue
    error in ArgumentError -> {:reply, {:raise, error}, state}
  end

  def handle_call(:subscribe, {pid, _tag}, state) do
    subscribers = Map.put_new_lazy(state.subscribers, pid, fn -> Process.monitor(pid) end)
    {:reply, :ok, %{state | subscribers: subscribers}}
  end

  def handle_call(:unsubscribe, {pid, _tag}, state), do: {:reply, :ok, forget(pid, state)}

  def handle_call(:hold, _from, %{held: true} = state), do: {:reply, :ok, state}

  def handle_call(:hold, _from, %{phase: :attached} = state),
    do: {:reply, :ok, %{state | held: true}}

  # An attempt that is under way or due is made after the hold.
  def handle_call(:hold, _from, state),
    do: {:reply, :ok, hold(state, if(state.lost, do: state.wanted))}

  def handle_call(:leave, _from, %{held: true, phase: :attached} = state) do
    notify(state, {:tube_domain, :lost})
    {:reply, :ok, hold(state, state.wanted)}
  end

  def handle_call(:leave, _from, state), do: {:reply, :ok, state}

  def handle_call(:resume, from, %{held: true, back: back} = state) when back != nil do
    # On Xen the domain may have another number now.
    wanted = if back.platform == :xen, do: %{back | domid: state.given}, else: back
    state = %{state | held: false, back: nil, lost: true, wanted: wanted, callers: [{from, %{}}]}
    {:noreply, attempt(state)}
  end

  def handle_call(:resume, _from, state), do: {:reply, {:ok, nil}, %{state | held: false}}

  @impl true
  def handle_info({:concluded, pid, result}, %{phase: {:attempt, pid, monitor, _}} = state) do
    Process.demonitor(monitor, [:flush])
    {:noreply, concluded(result, state)}
  end

  # The attempt was given up just before it finished.
  def handle_info({:concluded, _pid, result}, state) do
    AttachTask.undo(result)
    {:noreply, state}
  end

  # It crashed.
  def handle_info({:DOWN, monitor, _, _, reason}, %{phase: {:attempt, _, monitor, _}} = state),
    do: {:noreply, concluded(reason, state)}

  def handle_info({:DOWN, _monitor, :process, pid, _reason}, state),
    do: {:noreply, forget(pid, state)}

  def handle_info({:timeout, timer, :attempt}, %{phase: {:attempt, pid, _, timer}} = state) do
    Process.exit(pid, :kill)
    {:noreply, state}
  end

  def handle_info({:timeout, timer, :pause}, %{phase: {:pause, timer}} = state),
    do: {:noreply, attempt(state)}

  # The event does not say which domain ended: each tube reads its peer's node again.
  def handle_info({:xenstore_watch, :released, _path}, %{phase: :attached} = state) do
    Xenstore.ack(state.domain.store, :released)
    notify(state, {:tube_domain, :released})
    {:noreply, state}
  end

  def handle_info({:EXIT, life, _reason}, %{life: life} = state) do
    state = drop_platform(state)
    {:noreply, if(state.phase == :attached, do: lost(state), else: state)}
  end

  def handle_info({:EXIT, store, reason}, %{phase: :attached, domain: %{store: store}} = state) do
    with {:shutdown, {:protocol, text}} <- reason,
         do: Logger.error("tube: closed the connection to xenstore: the store sent #{text}")

    {:noreply, lost(state)}
  end

  def handle_info(_late, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state), do: leave(state, {:no_hub, "this VM is stopping"})

  ## Attaching

  defp attach_as(_settings, {_from, named}, %{phase: :attached} = state),
    do: {:reply, Domain.check(state.domain, named), state}

  # Callers do not wait for a lost domain; subscribers are notified when it is back.
  defp attach_as(_settings, _caller, %{lost: true} = state),
    do:
      {:reply, {:error, state.error || {:no_hub, "the hub is gone; waiting for it to come back"}},
       state}

  defp attach_as(settings, caller, %{phase: :idle} = state),
    do:
      {:noreply,
       attempt(%{state | wanted: settings, given: settings.domid, callers: [caller], failures: 0})}

  defp attach_as(_settings, caller, state),
    do: {:noreply, %{state | callers: [caller | state.callers]}}

  defp attempt(%{wanted: settings, platform: platform} = state) do
    domain = self()

    {pid, monitor} =
      spawn_monitor(fn ->
        result = if platform, do: AttachTask.reopen(platform), else: AttachTask.attach(settings)
        send(domain, {:concluded, self(), result})
      end)

    %{state | phase: {:attempt, pid, monitor, :erlang.start_timer(@attempt_ms, self(), :attempt)}}
  end

  # The driver is loaded here, not in the attempt: a driver without ports is unloaded with the
  # process that loaded it. `life` is taken here too: the domain lives for as long as some process
  # holds it.
  defp concluded({:attached, platform, domid, store} = result, state) do
    with {:ok, claim} <- claim(state),
         {:driver, :ok} <- {:driver, Native.Driver.load()},
         {:life, {:ok, life}} <- {:life, Native.life(platform)} do
      first? = claim != state.claim or (claim != nil and state.stale)
      life = Native.Driver.open_stream(life)
      state = %{state | platform: platform, life: life, claim: claim, stale: false}
      connected(store, %{state | wanted: %{state.wanted | domid: domid}}, first?)
    else
      {:error, error} ->
        AttachTask.undo(result)
        failed(error, state)

      {part, {:error, reason}} ->
        AttachTask.undo(result)
        failed({:native, "#{part}: #{inspect(reason)}"}, state)
    end
  end

  defp concluded({:reopened, _store} = result, %{platform: nil} = state) do
    AttachTask.undo(result)
    failed({:no_hub, "the hub is gone"}, state)
  end

  defp concluded({:reopened, store}, state), do: connected(store, state, false)

  # If the store failed, the domain may be dead without a sign of it: attach from the start.
  defp concluded({:error, error}, state), do: failed(error, drop_platform(state))

  defp concluded(:killed, state),
    do: concluded({:error, {:timeout, "no reply within #{@attempt_ms} ms"}}, state)

  defp concluded(crash, state),
    do: concluded({:error, {:native, Exception.format_exit(crash)}}, state)

  defp claim(%{wanted: %{platform: :xen}, claim: nil}), do: ExclusiveClaim.take()
  defp claim(%{claim: claim}), do: {:ok, claim}

  defp connected(store, state, first?) do
    case Client.start_link({Stream, {store, stream(state.wanted.platform)}}) do
      {:ok, client} ->
        domain = %Domain{
          platform: state.platform,
          name: state.wanted.platform,
          domid: state.wanted.domid,
          run_dir: state.wanted.run_dir,
          store: client
        }

        if first?, do: sweep(domain)
        watch_released(client)

        if state.lost do
          Logger.notice("tube: #{Domain.describe(domain)} is back")
          notify(state, {:tube_domain, :attached, domain})
        end

        for {from, named} <- Enum.reverse(state.callers),
            do: GenServer.reply(from, Domain.check(domain, named))

        since = System.monotonic_time(:millisecond)

        %{
          state
          | phase: :attached,
            lost: false,
            domain: domain,
            since: since,
            callers: [],
            error: nil
        }

      {:error, reason} ->
        failed(
          {:store_lost, "cannot connect to the store: #{inspect(reason)}"},
          drop_platform(state)
        )
    end
  end

  defp failed(error, %{lost: true} = state) do
    for {from, _named} <- state.callers, do: GenServer.reply(from, {:error, error})
    pause(%{state | failures: state.failures + 1, error: error, callers: []})
  end

  defp failed(error, state), do: leave(state, error)

  # The only VM of its domain finds there only the remains of a dead predecessor. A failure does no
  # harm: each tube replaces whatever is in its place.
  defp sweep(%{store: store, domid: domid}) do
    for request <- Directory.sweep(domid), do: Xenstore.perform(store, request, timeout: 2_000)
  end

  # One watch for all tubes. Nothing waits for the reply: without this watch it only takes a moment
  # longer, until the peer's nodes vanish.
  defp watch_released(client) do
    path = Paths.released()
    Xenstore.request(client, :released, {:watch, path, path, :released})
  end

  # In domain 0 it may be a socket, which takes whatever fits the device.
  defp stream(:xen), do: :device
  defp stream(:local), do: :socket

  ## Losing

  defp lost(%{held: true} = state) do
    notify(state, {:tube_domain, :lost})
    hold(state, state.wanted)
  end

  defp lost(state) do
    what = if state.platform, do: "its connection to xenstore", else: "its hub"

    Logger.warning("tube: #{Domain.describe(state.domain)} lost #{what}")

    notify(state, {:tube_domain, :lost})
    stop_store(state.domain.store)

    # If each attachment is lost again at once, the pauses get longer.
    stable? = System.monotonic_time(:millisecond) - state.since > @pause_max_ms
    failures = if stable?, do: 0, else: state.failures + 1
    state = %{state | lost: true, domain: nil, failures: failures}
    if state.subscribers == %{}, do: leave(state, nil), else: pause(state)
  end

  defp pause(state) do
    limit = min(@pause_ms * Integer.pow(2, min(state.failures, 16)), @pause_max_ms)
    pause = div(limit, 2) + :rand.uniform(limit)
    %{state | phase: {:pause, :erlang.start_timer(pause, self(), :pause)}}
  end

  # The remains of our tubes in the store are swept when the domain is back.
  defp hold(state, back) do
    given = state.given
    %{leave(state, @held) | held: true, back: back, given: given, stale: true}
  end

  # Back to :idle from any phase.
  defp leave(state, error) do
    for {from, _named} <- state.callers, do: GenServer.reply(from, {:error, error})

    case state.phase do
      {:attempt, pid, monitor, timer} ->
        Process.demonitor(monitor, [:flush])
        Process.exit(pid, :kill)
        :erlang.cancel_timer(timer)

      {:pause, timer} ->
        :erlang.cancel_timer(timer)

      _none ->
        :ok
    end

    if state.domain, do: stop_store(state.domain.store)
    state = drop_platform(state)
    %State{subscribers: state.subscribers, claim: state.claim, error: error}
  end

  defp drop_platform(%{platform: nil} = state), do: state

  defp drop_platform(state) do
    # We end it ourselves, so its exit is no loss.
    Process.unlink(state.life)
    close(state.life)
    Native.detach(state.platform)
    %{state | platform: nil, life: nil}
  end

  defp close(port) do
    Port.close(port)
  rescue
    ArgumentError -> :ok
  end

  # The client itself informs its callers and subscribers.
  defp stop_store(store) do
    Process.unlink(store)
    Process.exit(store, :shutdown)
  end

  defp forget(pid, state) do
    {monitor, subscribers} = Map.pop(state.subscribers, pid)
    if monitor, do: Process.demonitor(monitor, [:flush])
    state = %{state | subscribers: subscribers}
    if state.lost and subscribers == %{}, do: leave(state, state.error), else: state
  end

  defp notify(state, message),
    do: for({pid, _monitor} <- state.subscribers, do: send(pid, message))
end
