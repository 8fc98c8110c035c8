defmodule Tube.Handshake.Tip do
  @moduledoc false
  # The side that accepts, one machine for each open request. Phases before the tube is open, with
  # the founding document's steps on domain 5:
  #
  #     :inbox      creates the inbox, where the nock may write
  #     :await      steps 1 and 2: waits for `nock`, which must hold the path of the nock's node
  #     :accept     steps 3 and 4: watches the nock's directory, writes `state` 1
  #     :allocate   allocates rings and port
  #     :offer      references, port and `state` 3, in one transaction
  #     :offered    waits for the nock's state 4
  #     :confirm    writes `state` 4
  #     :refusing   has written `error` and `state` 6; waits for the nock to go
  #
  # Each write to the tip's node is guarded by the nonce in the nock's node, which only the nock's
  # domain can write: a late tip never writes into the node of a later attempt.

  @behaviour Tube.Handshake.Machine

  alias Tube.{Handshake, Paths}
  alias Tube.Handshake.{Directory, Machine, Open, Step, Value}

  import Step, only: [clean: 1, fail: 2, own_state: 2, peer_state: 2, request: 3, start_timer: 2]

  @version Integer.to_string(Handshake.version())

  @doc "Starts to reply to an open request."
  @spec new(Handshake.params()) :: {Machine.t(), [Handshake.op()]}
  def new(params) do
    m = Machine.new(__MODULE__, params, :inbox)

    m
    |> start_timer(:limit)
    |> Step.watch(:tip_node, Paths.tip_root(m.me), nock_key(m))
    |> create_inbox()
    |> Machine.flush()
  end

  @spec handle(Machine.t(), Handshake.event()) :: {Machine.t(), [Handshake.op()]}
  defdelegate handle(machine, event), to: Machine

  @impl true
  def watch_peer(m),
    do: Step.watch(m, :peer, Paths.outbox(m.peer, m.me), peer_node(m) <> "/state")

  @impl true
  # The peer's node is watched once our own exists. Until then the end of any domain makes us read
  # the peer's node, since it may be the peer's end.
  def watched_tokens(:await), do: [:tip_node, :peer]
  def watched_tokens(phase) when phase in [:offered, :refusing], do: [:peer]
  def watched_tokens(_phase), do: []

  @impl true
  def reread(m, :tip_node),
    do: request(m, :tip_node, [{:read, nock_key(m)}, {:read, Paths.inbox(m.me, m.peer)}])

  def reread(m, :peer), do: Step.read_peer(m)

  defp create_inbox(m) do
    inbox = {:transaction, Directory.ensure_inbox(m.me, m.peer)}
    request(%{m | phase: :inbox}, :inbox, [inbox])
  end

  @impl true
  def replied(m, :inbox, [{:ok, _results}]), do: %{m | phase: :await}

  def replied(m, :tip_node, [{:ok, nock}, _inbox]) do
    m = watch_peer(%{m | entered: true})

    cond do
      # It names the nock's node, and we know where that must be: no other path is ever followed.
      nock != peer_node(m) -> fail(m, :protocol)
      m.verdict == :accept -> accept(m)
      true -> fail(m, elem(m.verdict, 1))
    end
  end

  # The last tube of this pair has ended meanwhile, and removed the inbox.
  def replied(m, :tip_node, [_absent, {:error, :enoent}]), do: create_inbox(m)
  def replied(m, :tip_node, _absent), do: m

  def replied(m, :refuse, [{:ok, _results}]), do: own_state(m, 6)
  def replied(m, :refuse, [{:error, _gone}]), do: clean(m)

  # The nock has given up, or has started again.
  def replied(m, _tag, [{:error, :guard}]), do: fail(m, :peer_down)
  def replied(m, _tag, [{:error, reason}]), do: fail(m, reason)

  def replied(m, :accept, [{:ok, _results}]) do
    %{own_state(m, 1) | phase: :allocate}
    |> Step.native(:allocate, %{peer: m.peer, nonce: m.nonce})
  end

  def replied(m, :offer, [{:ok, _results}]), do: %{own_state(m, 3) | phase: :offered}
  def replied(m, :confirm, [{:ok, _results}]), do: m |> own_state(4) |> Open.enter()
  def replied(m, :peer, replies), do: follow(m, Step.peer(m, replies))

  @impl true
  def native_result(m, {:ok, refs}) do
    m = %{m | refs: refs, phase: :offer}
    request(m, :offer, [guarded(m, values(refs) ++ [state: 3])])
  end

  def native_result(m, {:error, reason}), do: fail(m, reason)

  defp follow(%{phase: :refusing} = m, {:state, _still_there}), do: m
  defp follow(%{phase: :refusing} = m, _gone), do: clean(m)
  defp follow(m, {:state, 2}), do: peer_state(m, 2)

  defp follow(m, {:state, 4}) do
    m = peer_state(m, 4)
    request(%{m | phase: :confirm}, :confirm, [write_state(m, 4)])
  end

  defp follow(m, gone) when gone in [:absent, :other], do: fail(m, :peer_down)
  defp follow(m, {:error, reason}), do: fail(m, reason)
  defp follow(m, _impossible), do: fail(m, :protocol)

  # Step 4. The nonce identifies the attempt.
  defp accept(m) do
    values = [nonce: m.nonce, version: @version, state: 1]
    request(%{m | phase: :accept}, :accept, [guarded(m, values)])
  end

  @impl true
  def give_up(m) do
    if m.entered and m.ending not in [nil, :peer_down, :peer_domain_gone] and m.own_state != 4 and
         m.store == :up,
       do: refuse(m),
       else: clean(m)
  end

  # The nock reads the reason, and goes. The rings stay until then: it may have mapped them.
  defp refuse(m) do
    values = [nonce: m.nonce, version: @version, error: Value.refusal(m.ending), state: 6]

    %{m | phase: :refusing, entered: false}
    |> start_timer(:close)
    |> request(:refuse, [guarded(m, values)])
  end

  @impl true
  def store_lost(m), do: fail(m, :store_lost)

  @impl true
  # A tip does not start again: the nock sends a new request, which another machine serves.
  def store_back(m, _nonce), do: m

  @impl true
  def refusable?, do: true

  @impl true
  def restarts?, do: false

  @impl true
  def frees_first?, do: false

  @impl true
  def write_state(m, state), do: guarded(m, state: state)

  defp guarded(m, values) do
    {:transaction, [{:guard, peer_node(m) <> "/nonce", [m.nonce]} | writes(m, values)]}
  end

  defp writes(m, values),
    do: for({key, value} <- values, do: {:write, "#{own_node(m)}/#{key}", to_string(value)})

  defp values(refs) do
    [
      "tx-ring-ref": refs.tx_ring_ref,
      "rx-ring-ref": refs.rx_ring_ref,
      "event-channel": refs.event_channel,
      "tx-ring-bytes": refs.tx_ring_bytes,
      "rx-ring-bytes": refs.rx_ring_bytes,
      opened: refs.opened
    ]
  end

  @impl true
  # The whole node, `nock` included, since the nock may have to wait for a new inbox. The guard
  # allows for a nock that has not published its half again yet.
  def publish(m) do
    values =
      [nock: peer_node(m), nonce: m.nonce, version: @version] ++
        values(m.refs) ++ [state: m.own_state]

    {:transaction,
     [{:guard, peer_node(m) <> "/nonce", [nil, m.nonce]}] ++
       Directory.ensure_inbox(m.me, m.peer) ++ writes(m, values)}
  end

  @impl true
  # Our node is ours to remove unless it now belongs to a later attempt.
  def remove(m) do
    {:transaction,
     [
       {:guard, peer_node(m) <> "/nonce", [nil, m.nonce]},
       {:try, {:rm, own_node(m)}},
       {:prune, Paths.inbox(m.me, m.peer)},
       {:prune, Paths.tip_root(m.me)}
     ]}
  end

  @impl true
  def peer_node(m), do: Paths.nock_node(m.peer, m.me, m.tid)

  defp own_node(m), do: Paths.tip_node(m.me, m.peer, m.tid)
  defp nock_key(m), do: own_node(m) <> "/nock"
end
