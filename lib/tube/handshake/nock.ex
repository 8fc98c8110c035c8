defmodule Tube.Handshake.Nock do
  @moduledoc false
  # The side that opens a tube. Phases before the tube is open, with the founding document's steps:
  #
  #     :services  waits for the tip's service directory and the service in it
  #     :request   steps 1 to 3: our node with `tip` and `state` 2, in one transaction
  #     :inbox     steps 4 and 5: creates the tip's node, as soon as the tip has made the inbox
  #     :tip_node  step 6: waits for the tip's state 3
  #     :offer     reads references and port
  #     :map       maps them, then writes `state` 4
  #     :confirm   waits for the tip's state 4
  #     :lost      waits for the store to come back

  @behaviour Tube.Handshake.Machine

  alias Tube.{Handshake, Paths}
  alias Tube.Handshake.{Directory, Machine, Open, Step, Value}

  import Step,
    only: [clean: 1, fail: 2, free: 1, own_state: 2, peer_state: 2, request: 3, start_timer: 2]

  @version Integer.to_string(Handshake.version())

  @doc "Starts to open a tube to `params.peer`."
  @spec new(Handshake.params()) :: {Machine.t(), [Handshake.op()]}
  def new(params) do
    __MODULE__
    |> Machine.new(params, :services)
    |> start_timer(:limit)
    |> watches()
    |> Machine.flush()
  end

  @spec handle(Machine.t(), Handshake.event()) :: {Machine.t(), [Handshake.op()]}
  defdelegate handle(machine, event), to: Machine

  # Both are set before the first read, so no later change is missed.
  defp watches(m) do
    services = Paths.service_directory(m.peer)
    m |> Step.watch(:services, services, services) |> watch_peer()
  end

  @impl true
  # Step 6. Inbox and tip's node are above `state`, so this watch reports their changes too.
  def watch_peer(m),
    do: Step.watch(m, :peer, Paths.inbox(m.peer, m.me), peer_node(m) <> "/state")

  @impl true
  def watched_tokens(:services), do: [:services]
  def watched_tokens(phase) when phase in [:inbox, :tip_node], do: [:peer, :services]
  def watched_tokens(:confirm), do: [:peer]
  def watched_tokens(_phase), do: []

  @impl true
  def reread(m, :services) do
    request(m, :services, [
      {:read, Paths.service_directory_version(m.peer)},
      {:read, Paths.service(m.peer, m.service)}
    ])
  end

  def reread(%{phase: :inbox} = m, :peer), do: create_tip_node(m)
  def reread(m, :peer), do: Step.read_peer(m)

  @impl true
  # A new instance serves the service: it has not seen our open request. The old one may still be
  # serving it, so this is a new attempt.
  def replied(%{instance: known} = m, :services, [{:ok, @version}, {:ok, instance}])
      when instance != known do
    nonce = if known, do: Value.next(m.nonce), else: m.nonce
    m = %{m | instance: instance, nonce: nonce, phase: :request}

    # The remains of an older attempt go in the same moment in which the tip sees this one.
    remains = [{:try, {:rm, own_node(m)}}, {:try, {:rm, peer_node(m)}}]
    request(m, :request, [open_request(m, 2, remains)])
  end

  def replied(%{phase: :services} = m, :services, [{:ok, version}, _instance])
      when version != @version,
      do: fail(m, :version)

  # No service directory, or not this service: the watch reports the change. Or nothing is new.
  def replied(m, :services, _replies), do: m

  def replied(m, :request, [{:ok, _results}]),
    do: %{own_state(m, 2) | phase: :inbox} |> create_tip_node()

  def replied(m, :request, [{:error, reason}]), do: fail(m, reason)

  # The write decides: if the inbox appeared between the two, the write created the node as well.
  def replied(m, :create, [_mkdir, :ok]), do: %{m | phase: :tip_node}

  # There is no inbox yet: the tip makes it, and the watch reports it.
  def replied(m, :create, [_mkdir, {:error, reason}]) when reason in [:enoent, :eacces], do: m
  def replied(m, :create, [_mkdir, {:error, reason}]), do: fail(m, reason)

  def replied(m, :peer, replies), do: follow(m, Step.peer(m, replies))

  def replied(m, :offer, replies) do
    case Enum.find(replies, &match?({:error, _}, &1)) do
      nil -> offered(m, for({:ok, value} <- replies, do: value))
      # All of it was written at once, so the tip has removed it.
      {:error, reason} when reason in [:enoent, :eacces] -> fail(m, :peer_down)
      {:error, reason} -> fail(m, reason)
    end
  end

  def replied(m, :connected, [:ok]), do: own_state(m, 4)
  def replied(m, :connected, [{:error, reason}]), do: fail(m, reason)
  def replied(m, :refused, [{:ok, word}]), do: fail(m, Value.refused(word))
  def replied(m, :refused, [{:error, _none}]), do: fail(m, :peer_down)

  @impl true
  def native_result(m, :ok),
    do: request(%{m | phase: :confirm}, :connected, [write_state(m, 4)])

  # If the tip has ended, and its pages with it, that is the reason to report.
  def native_result(m, {:error, reason}), do: Step.read_peer(%{m | phase: {:unmapped, reason}})

  defp offered(m, [@version | numbers]) do
    case Enum.map(numbers, &Value.u32/1) do
      [{:ok, tx}, {:ok, rx}, {:ok, port}] ->
        spec = %{
          tx_ring_ref: tx,
          rx_ring_ref: rx,
          event_channel: port,
          peer: m.peer,
          nonce: m.nonce
        }

        Step.native(%{m | phase: :map}, :map, spec)

      _impossible ->
        fail(m, :protocol)
    end
  end

  defp offered(m, _other_version), do: fail(m, :version)

  # The state of the tip's half while we wait for it.
  defp follow(%{phase: :tip_node} = m, {:state, 1}), do: peer_state(m, 1)

  defp follow(%{phase: :tip_node} = m, {:state, 3}) do
    keys = ~w(version tx-ring-ref rx-ring-ref event-channel)

    m
    |> peer_state(3)
    |> Map.put(:phase, :offer)
    |> request(:offer, for(key <- keys, do: {:read, peer_node(m) <> "/" <> key}))
  end

  # Nothing yet, or the remains of an older attempt: ours is still to come.
  defp follow(%{phase: :tip_node} = m, gone) when gone in [:absent, :other], do: m

  defp follow(%{phase: :confirm} = m, {:state, 3}), do: m
  # 5: the tip was connected, and has closed before we read its state.
  defp follow(%{phase: :confirm} = m, {:state, state}) when state in [4, 5] do
    m = m |> Open.enter() |> peer_state(4)
    if state == 5, do: %{m | dirty: [:peer]}, else: m
  end

  defp follow(%{phase: :confirm} = m, gone) when gone in [:absent, :other],
    do: fail(m, :peer_down)

  defp follow(%{phase: {:unmapped, _}} = m, gone) when gone in [:absent, :other],
    do: fail(m, :peer_down)

  defp follow(m, {:state, 6}) do
    m |> peer_state(6) |> request(:refused, [{:read, peer_node(m) <> "/error"}])
  end

  defp follow(%{phase: {:unmapped, reason}} = m, _still_there), do: fail(m, reason)
  defp follow(m, {:error, reason}), do: fail(m, reason)
  defp follow(m, _impossible), do: fail(m, :protocol)

  # Steps 4 and 5. Repeating them does no harm.
  defp create_tip_node(m) do
    node = peer_node(m)

    request(%{m | dirty: m.dirty -- [:peer]}, :create, [
      {:mkdir, node},
      {:write, node <> "/nock", own_node(m)}
    ])
  end

  # Steps 1 to 3. Everything the tip needs is there when it sees the state. Our node gets its
  # permissions explicitly, although its parent's look the same: a permission for a domain that has
  # ended and come back under its number is void, yet still listed and inherited.
  defp open_request(m, state, first) do
    dir = own_node(m)

    values = [
      tip: peer_node(m),
      service: Paths.escape(m.service),
      version: @version,
      nonce: m.nonce
    ]

    parents = [{Paths.nock_root(m.me), n: m.me}, {Paths.outbox(m.me, m.peer), readable(m)}]

    {:transaction,
     first ++
       Directory.ensure_data(m.me) ++
       for({path, perms} <- parents ++ [{dir, readable(m)}], do: {:ensure, path, perms}) ++
       for({key, value} <- values, do: {:write, "#{dir}/#{key}", value}) ++
       [write_state(m, state)]}
  end

  defp readable(m), do: Enum.uniq(n: m.me, r: m.peer)

  @impl true
  def write_state(m, state), do: {:write, own_node(m) <> "/state", Integer.to_string(state)}

  @impl true
  def publish(m), do: open_request(m, m.own_state, [])

  @impl true
  # Removes the tip's node too, since the tip may be dead. Does all of it even if we never sent our
  # request: what is there then belongs to a dead predecessor.
  def remove(m) do
    {:transaction,
     [
       {:try, {:rm, own_node(m)}},
       {:try, {:rm, peer_node(m)}},
       {:prune, Paths.outbox(m.me, m.peer)},
       {:prune, Paths.inbox(m.peer, m.me)},
       {:prune, Paths.nock_root(m.me)}
     ] ++ if(m.me in [0, m.peer], do: [{:prune, Paths.tip_root(m.peer)}], else: [])}
  end

  @impl true
  def peer_node(m), do: Paths.tip_node(m.peer, m.me, m.tid)

  defp own_node(m), do: Paths.nock_node(m.me, m.peer, m.tid)

  @impl true
  def give_up(m), do: clean(m)

  @impl true
  def store_lost(m), do: %{m | phase: :lost}

  @impl true
  # The tip has lost the store too, or has seen our nodes vanish. Start again, within the same
  # limit.
  def store_back(m, nonce) do
    # No instance has this name, so any service looks new, and there is something to remove.
    instance = if m.instance, do: :before
    m = free(m)

    watches(%{
      m
      | phase: :services,
        nonce: nonce,
        own_state: nil,
        peer_state: nil,
        dirty: [],
        instance: instance
    })
  end

  @impl true
  def refusable?, do: false

  @impl true
  def restarts?, do: true

  @impl true
  # A grant cannot be ended while the nock maps it.
  def frees_first?, do: true
end
