defmodule Tube.Stats.Publisher do
  @moduledoc false
  # Shows the counters of this VM's tubes to whoever looks from outside, and to nobody else.
  #
  # Domain 0 cannot map the pages of two other domains, so what it is to see goes through the store
  # (docs/wire.md, section 9). It asks by writing a node of ours, again and again while it looks; as
  # long as it does, and at most `@watched` longer, this process writes a line for each tube, once in
  # `@interval`. Otherwise it does nothing at all: it has no timer, and the tubes do not know of it.
  #
  # What asking can cost us is bounded, however often it is done: the node is looked at once in
  # `@interval`, an event of it is not even acknowledged before, and `@most` tubes are shown.

  use GenServer

  alias Tube.Connection.Registry
  alias Tube.{Domain, Handshake, Paths, Xenstore}
  alias Tube.Stats.{Sample, Snapshot}

  @interval 1_000
  # Whoever looks renews its wish several times in that time.
  @watched 10_000
  # After the last tube: tubes that come one after the other need not begin anew each time.
  @linger 5_000
  @most 128

  # A store that does not answer must not be asked for long.
  @limit [timeout: 2_000]

  # `shown`: the nodes that we have written. `watched`: until when somebody looks, if anybody does.
  # `full`: the store has no room for our nodes, so we leave it to those of the tubes.
  defstruct domain: nil,
            live: nil,
            looked: nil,
            looking: nil,
            watched: nil,
            tick: nil,
            full: false,
            shown: MapSet.new()

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "A tube is connected. Costs its process one message."
  @spec connected(pid) :: :ok
  def connected(tube), do: GenServer.cast(__MODULE__, {:connected, tube})

  @impl true
  def init(nil) do
    Process.flag(:trap_exit, true)
    {:ok, %__MODULE__{}}
  end

  # One living tube is enough to know that there are any.
  @impl true
  def handle_cast({:connected, tube}, %{live: nil} = state) do
    :ok = Domain.subscribe()
    state = %{state | live: Process.monitor(tube)}

    case Domain.attach() do
      {:ok, domain} -> {:noreply, attached(state, domain)}
      # It comes back some time, and then we are told.
      {:error, _reason} -> {:noreply, state}
    end
  end

  def handle_cast({:connected, _tube}, state), do: {:noreply, state}

  @impl true
  def handle_info({:DOWN, live, :process, _tube, _reason}, %{live: live} = state) do
    case Registry.records() do
      [entry | _] ->
        {:noreply, %{state | live: Process.monitor(entry.tube.pid)}}

      [] ->
        Process.send_after(self(), :leave, @linger)
        {:noreply, state}
    end
  end

  def handle_info(:leave, state) do
    case Registry.records() do
      [entry | _] -> {:noreply, %{state | live: Process.monitor(entry.tube.pid)}}
      [] -> {:noreply, leave(state)}
    end
  end

  def handle_info({:tube_domain, :attached, domain}, state),
    do: {:noreply, attached(state, domain)}

  def handle_info({:tube_domain, :lost}, state), do: {:noreply, lost(state)}
  def handle_info({:xenstore_lost, _client}, state), do: {:noreply, lost(state)}

  def handle_info({:xenstore_watch, {__MODULE__, _} = token, _path}, %{looking: nil} = state) do
    pause = max(0, (state.looked || now() - @interval) + @interval - now())
    {:noreply, %{state | looking: Process.send_after(self(), {:look, token}, pause)}}
  end

  def handle_info({:look, token}, %{domain: domain} = state) when domain != nil do
    # Acknowledged first, so that what changes while we look is told again.
    Xenstore.ack(domain.store, token)
    {:noreply, look(%{state | looking: nil, looked: now()})}
  end

  def handle_info({:tick, ref}, %{tick: ref} = state) do
    if now() < state.watched, do: {:noreply, show(state)}, else: {:noreply, hide(state)}
  end

  def handle_info(_late, state), do: {:noreply, state}

  # On Xen the domain lives on without us, and so would our nodes.
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
    if state.looking, do: Process.cancel_timer(state.looking)
    %__MODULE__{live: state.live}
  end

  defp leave(state) do
    state = if state.watched, do: hide(state), else: state
    domain = state.domain
    if domain, do: Xenstore.unwatch(domain.store, {__MODULE__, domain.store}, @limit)
    Domain.unsubscribe()
    %{lost(state) | live: nil}
  end

  ## Whether anybody looks

  defp look(%{domain: domain} = state) do
    case {Xenstore.read(domain.store, Paths.stats_watch(domain.domid), @limit), state.watched} do
      {{:ok, _who}, nil} -> begin(%{state | watched: now() + @watched, full: false})
      {{:ok, _who}, _until} -> %{state | watched: now() + @watched}
      {{:error, _gone}, nil} -> state
      {{:error, _gone}, _until} -> hide(state)
    end
  end

  defp begin(%{domain: %{domid: me, store: store}} = state) do
    requests = Handshake.home(me) ++ [{:ensure, Paths.stats(me), n: me}]
    body = fn transaction -> Handshake.run(requests, &Xenstore.perform_all(transaction, &1)) end

    case Xenstore.transaction(store, body, @limit) do
      {:ok, _results} -> show(state)
      {:error, _reason} -> hide(state)
    end
  end

  ## What is shown

  # Each round begins when the last one is over, so a slow store has fewer of them.
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

      # A tube that is to come needs the room more than this does.
      {:error, _no_room} ->
        for path <- Map.keys(lines), do: Xenstore.rm(domain.store, path, @limit)
        %{state | shown: MapSet.new(), full: true}
    end
  end

  defp write_all(_store, []), do: :ok

  defp write_all(store, [{path, line} | rest]) do
    with :ok <- Xenstore.write(store, path, line, @limit), do: write_all(store, rest)
  end

  # The wish goes too: it was not renewed, or whoever had it has taken it back.
  defp hide(%{domain: domain} = state) do
    Xenstore.rm(domain.store, Paths.stats(domain.domid), @limit)
    %{state | watched: nil, tick: nil, full: false, shown: MapSet.new()}
  end

  defp now, do: System.monotonic_time(:millisecond)
end
