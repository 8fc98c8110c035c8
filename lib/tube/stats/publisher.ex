defmodule Tube.Stats.Publisher do
  @moduledoc false
  # Publishes the counters of this VM's tubes in the store while a reader asks for them.
  #
  # Domain 0 cannot map the pages of two other domains, so it gets their counters through the store
  # (docs/wire.md, section 9). A reader renews a lease by writing a node of ours. Until `@lease`
  # after the last renewal this process writes one line per tube every `@interval`. Otherwise it
  # does nothing: it has no timer, and tubes do not know of it.
  #
  # The cost of a lease is bounded, however often it is renewed: the node is read once per
  # `@interval`, its event is not even acknowledged before, and at most `@most` tubes are published.

  use GenServer

  alias Tube.Connection.Registry
  alias Tube.{Domain, Paths, Xenstore}
  alias Tube.Handshake.Directory
  alias Tube.Stats.{Sample, Snapshot}

  @interval 1_000
  # A reader renews its lease several times in that time.
  @lease 10_000
  # The watch stays so long after the last tube, so that a series of tubes shares it.
  @idle 5_000
  @most 128

  # A store that does not reply must not block this process for long.
  @limit [timeout: 2_000]

  # `live` monitors one living tube. `read_at` and `read_timer`: the last and the next read of the
  # lease node. `watched`: when the lease ends, if there is one. `shown`: the nodes that we have
  # written. `full`: the store has no room for them, and leaves it to the nodes of the tubes.
  defstruct domain: nil,
            live: nil,
            read_at: nil,
            read_timer: nil,
            watched: nil,
            tick: nil,
            full: false,
            shown: MapSet.new()

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Reports a connected tube. Costs its process one message."
  @spec connected(pid) :: :ok
  def connected(tube), do: GenServer.cast(__MODULE__, {:connected, tube})

  @impl true
  def init(nil) do
    Process.flag(:trap_exit, true)
    {:ok, %__MODULE__{}}
  end

  # Monitoring one living tube is enough.
  @impl true
  def handle_cast({:connected, tube}, %{live: nil} = state) do
    :ok = Domain.subscribe()
    state = %{state | live: Process.monitor(tube)}

    case Domain.attach() do
      {:ok, domain} -> {:noreply, attached(state, domain)}
      # A message reports when it is back.
      {:error, _reason} -> {:noreply, state}
    end
  end

  def handle_cast({:connected, _tube}, state), do: {:noreply, state}

  @impl true
  def handle_info({:DOWN, live, :process, _tube, _reason}, %{live: live} = state) do
    case Registry.records() do
      [record | _] ->
        {:noreply, %{state | live: Process.monitor(record.tube.pid)}}

      [] ->
        Process.send_after(self(), :leave, @idle)
        {:noreply, state}
    end
  end

  def handle_info(:leave, state) do
    case Registry.records() do
      [record | _] -> {:noreply, %{state | live: Process.monitor(record.tube.pid)}}
      [] -> {:noreply, leave(state)}
    end
  end

  def handle_info({:tube_domain, :attached, domain}, state),
    do: {:noreply, attached(state, domain)}

  def handle_info({:tube_domain, :lost}, state), do: {:noreply, lost(state)}
  def handle_info({:xenstore_lost, _client}, state), do: {:noreply, lost(state)}

  def handle_info({:xenstore_watch, {__MODULE__, _} = token, _path}, %{read_timer: nil} = state) do
    pause = max(0, (state.read_at || now() - @interval) + @interval - now())
    {:noreply, %{state | read_timer: Process.send_after(self(), {:read_lease, token}, pause)}}
  end

  def handle_info({:read_lease, token}, %{domain: domain} = state) when domain != nil do
    # Acknowledged first, so that a change during the read causes another event.
    Xenstore.ack(domain.store, token)
    {:noreply, read_lease(%{state | read_timer: nil, read_at: now()})}
  end

  def handle_info({:tick, ref}, %{tick: ref} = state) do
    if now() < state.watched, do: {:noreply, show(state)}, else: {:noreply, hide(state)}
  end

  def handle_info(_late, state), do: {:noreply, state}

  # On Xen the domain outlives us, and so would our nodes.
  @impl true
  def terminate(_reason, state) do
    if state.domain && state.watched, do: hide(state)
  end

  ## With a store or without

  # Without a living tube we have unsubscribed, or are about to.
  defp attached(%{live: nil} = state, _domain), do: state

  defp attached(state, domain) do
    state = lost(state)
    path = Paths.stats_watch(domain.domid)

    case Xenstore.watch(domain.store, path, path, {__MODULE__, domain.store}, @limit) do
      :ok -> %{state | domain: domain}
      {:error, _reason} -> state
    end
  end

  defp lost(state) do
    if state.read_timer, do: Process.cancel_timer(state.read_timer)
    %__MODULE__{live: state.live}
  end

  defp leave(state) do
    state = if state.watched, do: hide(state), else: state
    domain = state.domain
    if domain, do: Xenstore.unwatch(domain.store, {__MODULE__, domain.store}, @limit)
    Domain.unsubscribe()
    %{lost(state) | live: nil}
  end

  ## The lease

  defp read_lease(%{domain: domain} = state) do
    case {Xenstore.read(domain.store, Paths.stats_watch(domain.domid), @limit), state.watched} do
      {{:ok, _lease}, nil} -> begin(%{state | watched: now() + @lease, full: false})
      {{:ok, _lease}, _until} -> %{state | watched: now() + @lease}
      {{:error, _gone}, nil} -> state
      {{:error, _gone}, _until} -> hide(state)
    end
  end

  defp begin(%{domain: %{domid: me, store: store}} = state) do
    steps = Directory.ensure_data(me) ++ [{:ensure, Paths.stats(me), n: me}]

    case Xenstore.batch(store, steps, @limit) do
      {:ok, _results} -> show(state)
      {:error, _reason} -> hide(state)
    end
  end

  ## The counters

  # Each round begins when the last one is over, so a slow store gets fewer of them.
  defp show(state) do
    state = if state.full, do: state, else: write(state)
    ref = make_ref()
    Process.send_after(self(), {:tick, ref}, @interval)
    %{state | tick: ref}
  end

  defp write(%{domain: domain} = state) do
    time =
      now() - :erlang.convert_time_unit(:erlang.system_info(:start_time), :native, :millisecond)

    lines =
      for tube <- Snapshot.take(@most), into: %{} do
        {Paths.stats(tube.me, tube.role, tube.peer, tube.tid), Sample.encode(tube, time)}
      end

    for path <- state.shown,
        not is_map_key(lines, path),
        do: Xenstore.rm(domain.store, path, @limit)

    case write_all(domain.store, Enum.to_list(lines)) do
      :ok ->
        %{state | shown: MapSet.new(Map.keys(lines))}

      # New tubes need the room more than counters do.
      {:error, _no_room} ->
        for path <- Map.keys(lines), do: Xenstore.rm(domain.store, path, @limit)
        %{state | shown: MapSet.new(), full: true}
    end
  end

  defp write_all(_store, []), do: :ok

  defp write_all(store, [{path, line} | rest]) do
    with :ok <- Xenstore.write(store, path, line, @limit), do: write_all(store, rest)
  end

  # This removes the lease node too: the lease has expired, or its reader has ended it.
  defp hide(%{domain: domain} = state) do
    Xenstore.rm(domain.store, Paths.stats(domain.domid), @limit)
    %{state | watched: nil, tick: nil, full: false, shown: MapSet.new()}
  end

  defp now, do: System.monotonic_time(:millisecond)
end
