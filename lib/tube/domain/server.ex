defmodule Tube.Domain.Server do
  @moduledoc false
  # The process behind `Tube.Domain`: attaches when asked, notices loss, comes back.
  #
  # Attaching may mean starting a program, and a hub may hang: a process of its own does it, so
  # that this one always answers.

  use GenServer

  alias Tube.Domain
  alias Tube.Domain.{AttachTask, ExclusiveClaim, Settings, State}
  alias Tube.{Handshake, Native, Paths, Xenstore}
  alias Tube.Xenstore.{Client, Stream}

  require Logger

  # One attempt: a hub may be started (10 s) and then has to answer (5 s).
  @attempt_ms 20_000

  # Between attempts, doubling. All VMs of a host lose their hub at the same moment: the jitter
  # keeps them from coming back at the same moment too.
  @pause_ms 20
  @pause_max_ms 5_000

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
        # Only what was asked for in so many words: the environment may have changed since.
        named = for {key, value} <- opts, value != nil, do: key
        attach_as(settings, {from, asked(settings, named)}, state)

      {:error, _} = error ->
        {:reply, error, state}
    end
  rescue
    error in ArgumentError -> {:reply, {:raise, error}, state}
  end

  def handle_call(:info, _from, state) do
    info = %{
      platform: if(state.phase == :attached, do: state.domain.name),
      domid: state.wanted && state.wanted.domid,
      run_dir: state.wanted && state.wanted.run_dir,
      hub: hub(state),
      error: state.error
    }

    {:reply, info, state}
  end

  def handle_call(:subscribe, {pid, _tag}, state) do
    subscribers = Map.put_new_lazy(state.subscribers, pid, fn -> Process.monitor(pid) end)
    {:reply, :ok, %{state | subscribers: subscribers}}
  end

  def handle_call(:unsubscribe, {pid, _tag}, state), do: {:reply, :ok, forget(pid, state)}

  def handle_call(:detach, _from, state) do
    if state.phase == :attached, do: tell(state, {:tube_domain, :lost})
    {:reply, :ok, leave(state, {:no_hub, "the domain was detached meanwhile"})}
  end

  def handle_call(:hold, _from, %{held: true} = state), do: {:reply, :ok, state}

  def handle_call(:hold, _from, %{phase: :attached} = state),
    do: {:reply, :ok, %{state | held: true}}

  # An attempt, or one to come, is made when all is over.
  def handle_call(:hold, _from, state),
    do: {:reply, :ok, hold(state, if(state.lost, do: state.wanted))}

  def handle_call(:leave, _from, %{held: true, phase: :attached} = state) do
    tell(state, {:tube_domain, :lost})
    {:reply, :ok, hold(state, state.wanted)}
  end

  def handle_call(:leave, _from, state), do: {:reply, :ok, state}

  def handle_call(:resume, from, %{held: true, back: back} = state) when back != nil do
    # Xen may have given us another number meanwhile.
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

  # Given up in the last moment.
  def handle_info({:concluded, _pid, result}, state) do
    AttachTask.undo(result)
    {:noreply, state}
  end

  # Without a result.
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

  # It does not say which domain: everybody looks at the own peer.
  def handle_info({:xenstore_watch, :released, _path}, %{phase: :attached} = state) do
    Xenstore.ack(state.domain.store, :released)
    tell(state, {:tube_domain, :released})
    {:noreply, state}
  end

  def handle_info({:EXIT, life, _reason}, %{life: life} = state) do
    state = drop_platform(state)
    {:noreply, if(state.phase == :attached, do: lost(state), else: state)}
  end

  def handle_info({:EXIT, store, reason}, %{phase: :attached, domain: %{store: store}} = state) do
    with {:shutdown, {:protocol, text}} <- reason,
         do:
           Logger.error(
             "tube: the connection to xenstore was closed, since the store sent #{text}"
           )

    {:noreply, lost(state)}
  end

  def handle_info(_late, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state), do: leave(state, {:no_hub, "this VM is stopping"})

  ## Attaching

  defp attach_as(_settings, {_from, asked}, %{phase: :attached} = state),
    do: {:reply, agreed(asked, state.domain), state}

  # Without a wait: who needs the domain is told when it is back.
  defp attach_as(_settings, _caller, %{lost: true} = state),
    do:
      {:reply, {:error, state.error || {:no_hub, "the hub has gone; it is being waited for"}},
       state}

  defp attach_as(settings, caller, %{phase: :idle} = state),
    do:
      {:noreply,
       attempt(%{state | wanted: settings, given: settings.domid, callers: [caller], failures: 0})}

  defp attach_as(_settings, caller, state),
    do: {:noreply, %{state | callers: [caller | state.callers]}}

  # In the words of a domain, whose `platform` is the thing itself.
  defp asked(settings, named) do
    for {key, value} <- Map.take(settings, named),
        into: %{},
        do: {if(key == :platform, do: :name, else: key), value}
  end

  defp agreed(asked, domain) do
    if Map.take(domain, Map.keys(asked)) == asked,
      do: {:ok, domain},
      else: {:error, {:einval, "this VM is #{described(domain)} already"}}
  end

  defp described(%{name: :xen, domid: domid}), do: "Xen's domain #{domid}"
  defp described(%{domid: domid, run_dir: run_dir}), do: "domain #{domid} of #{run_dir}"

  defp attempt(%{wanted: settings, platform: platform} = state) do
    domain = self()

    {pid, monitor} =
      spawn_monitor(fn ->
        result = if platform, do: AttachTask.reopen(platform), else: AttachTask.attach(settings)
        send(domain, {:concluded, self(), result})
      end)

    %{state | phase: {:attempt, pid, monitor, :erlang.start_timer(@attempt_ms, self(), :attempt)}}
  end

  # The driver is loaded here, not in the attempt: one without ports goes with the process that
  # loaded it. And `life` is taken here, because the domain lives for as long as anybody has it.
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
    failed({:no_hub, "the hub has gone"}, state)
  end

  defp concluded({:reopened, store}, state), do: connected(store, state, false)

  # If it was the store: the domain may be dead without a sign of it, so it is begun anew.
  defp concluded({:error, error}, state), do: failed(error, drop_platform(state))

  defp concluded(:killed, state),
    do: concluded({:error, {:timeout, "no answer within #{@attempt_ms} ms"}}, state)

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
          Logger.notice("tube: #{described(domain)} is back")
          tell(state, {:tube_domain, :attached, domain})
        end

        for {from, asked} <- Enum.reverse(state.callers),
            do: GenServer.reply(from, agreed(asked, domain))

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
          {:store_lost, "the store could not be connected to: #{inspect(reason)}"},
          drop_platform(state)
        )
    end
  end

  defp failed(error, %{lost: true} = state) do
    for {from, _asked} <- state.callers, do: GenServer.reply(from, {:error, error})
    pause(%{state | failures: state.failures + 1, error: error, callers: []})
  end

  defp failed(error, state), do: leave(state, error)

  # The only VM of its domain finds there what a dead predecessor has left, and nothing else. A
  # failure is no harm: what is there is then replaced piece by piece, by who needs its place.
  defp sweep(%{store: store, domid: domid}) do
    for request <- Handshake.sweep(domid), do: Xenstore.perform(store, request, timeout: 2_000)
  end

  # One for all tubes. Nobody waits for the answer: a store that refuses it, or has no right for us, costs
  # no more than the moment until the peer's nodes are seen to vanish.
  defp watch_released(client) do
    path = Paths.released()
    Xenstore.request(client, :released, {:watch, path, path, :released})
  end

  # In domain 0 it may be a socket; what fits the device fits that too.
  defp stream(:xen), do: :device
  defp stream(:local), do: :socket

  ## Losing

  defp lost(%{held: true} = state) do
    tell(state, {:tube_domain, :lost})
    hold(state, state.wanted)
  end

  defp lost(state) do
    what = if state.platform, do: "its connection to xenstore", else: "its hub"

    Logger.warning("tube: #{described(state.domain)} has lost #{what}")

    tell(state, {:tube_domain, :lost})
    stop_store(state.domain.store)

    # One that is lost again and again right after it was got is waited for longer and longer.
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

  # What is left of our tubes in the store is swept up when we are back.
  defp hold(state, back) do
    given = state.given
    %{leave(state, @held) | held: true, back: back, given: given, stale: true}
  end

  # Back to :idle, whatever was going on.
  defp leave(state, error) do
    for {from, _asked} <- state.callers, do: GenServer.reply(from, {:error, error})

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
    # Its end is our doing, no news to us.
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

  # It tells its callers and subscribers by itself.
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

  defp tell(state, message), do: for({pid, _monitor} <- state.subscribers, do: send(pid, message))

  defp hub(%{phase: :attached}), do: :up
  defp hub(%{phase: :idle}), do: :unknown
  defp hub(%{lost: true}), do: :down
  defp hub(_first_attempt), do: :attaching
end
