defmodule Tube.Handshake.Tip do
  @moduledoc false
  # The side that accepts, one machine for each knock. Phases before the tube is open, with the
  # founding document's steps on domain 5:
  #
  #     :inbox      makes the place where the nock may write
  #     :await      step 1, 2: waits for `nock`, which must be exactly the path of this knock
  #     :accept     step 3, 4: watches the nock's directory, writes `state` 1
  #     :allocate   opens rings and port
  #     :offer      references, port and `state` 3, in one transaction
  #     :offered    waits for the nock's state 4
  #     :confirm    writes `state` 4
  #     :refusing   has said no in `error` and `state` 6; waits for the nock to go
  #
  # Each write to the entry is guarded by the nonce in the nock's directory, which only the nock's
  # domain can write: a tip that is late never writes into a later attempt's entry.

  @behaviour Tube.Handshake.Machine

  alias Tube.{Handshake, Paths}
  alias Tube.Handshake.{Machine, Open, Value}
  import Machine, only: [ask: 3, ask_native: 3, clean: 1, fail: 2, start: 2, wrote: 2]

  @version Integer.to_string(Handshake.version())

  @doc "Starts to answer a knock."
  @spec new(Handshake.params()) :: {Machine.t(), [Handshake.op()]}
  def new(params) do
    m = Machine.new(__MODULE__, params, :inbox)

    m
    |> start(:limit)
    |> Machine.watch(:entry, Paths.tip_root(m.me), nock(m))
    |> make_inbox()
    |> Machine.flush()
  end

  @spec handle(Machine.t(), Handshake.event()) :: {Machine.t(), [Handshake.op()]}
  defdelegate handle(machine, event), to: Machine

  @impl true
  def watch_peer(m),
    do: Machine.watch(m, :peer, Paths.outbox(m.peer, m.me), theirs(m) <> "/state")

  @impl true
  # Its peer's knock is watched from the entry on; before, some domain's end is a reason to look at it.
  def heeds(:await), do: [:entry, :peer]
  def heeds(phase) when phase in [:offered, :refusing], do: [:peer]
  def heeds(_phase), do: []

  @impl true
  def look(m, :entry), do: ask(m, :entry, [{:read, nock(m)}, {:read, Paths.inbox(m.me, m.peer)}])
  def look(m, :peer), do: Machine.ask_peer(m)

  defp make_inbox(m),
    do: ask(%{m | phase: :inbox}, :inbox, [{:transaction, Handshake.inbox(m.me, m.peer)}])

  @impl true
  def answered(m, :inbox, [{:ok, _results}]), do: %{m | phase: :await}

  def answered(m, :entry, [{:ok, nock}, _inbox]) do
    m = watch_peer(%{m | entered: true})

    cond do
      # It says where the nock is, and we know where it must be: no other path is ever followed.
      nock != theirs(m) -> fail(m, :protocol)
      m.verdict == :accept -> accept(m)
      true -> fail(m, elem(m.verdict, 1))
    end
  end

  # The last tube of this pair has ended meanwhile, and took the inbox with it.
  def answered(m, :entry, [_absent, {:error, :enoent}]), do: make_inbox(m)
  def answered(m, :entry, _absent), do: m

  def answered(m, :refuse, [{:ok, _results}]), do: wrote(m, 6)
  def answered(m, :refuse, [{:error, _gone}]), do: clean(m)

  # The nock has given up, or it has started again.
  def answered(m, _tag, [{:error, :guard}]), do: fail(m, :peer_down)
  def answered(m, _tag, [{:error, reason}]), do: fail(m, reason)

  def answered(m, :accept, [{:ok, _results}]) do
    %{wrote(m, 1) | phase: :allocate} |> ask_native(:allocate, %{peer: m.peer, nonce: m.nonce})
  end

  def answered(m, :offer, [{:ok, _results}]), do: %{wrote(m, 3) | phase: :offered}
  def answered(m, :confirm, [{:ok, _results}]), do: m |> wrote(4) |> Open.enter()
  def answered(m, :peer, answers), do: follow(m, Machine.peer(m, answers))

  @impl true
  def native(m, {:ok, refs}) do
    m = %{m | refs: refs, phase: :offer}
    ask(m, :offer, [guarded(m, values(refs) ++ [state: 3])])
  end

  def native(m, {:error, reason}), do: fail(m, reason)

  defp follow(%{phase: :refusing} = m, {:state, _still_there}), do: m
  defp follow(%{phase: :refusing} = m, _gone), do: clean(m)
  defp follow(m, {:state, 2}), do: Machine.saw(m, 2)

  defp follow(m, {:state, 4}) do
    m = Machine.saw(m, 4)
    ask(%{m | phase: :confirm}, :confirm, [write_state(m, 4)])
  end

  defp follow(m, gone) when gone in [:absent, :other], do: fail(m, :peer_down)
  defp follow(m, {:error, reason}), do: fail(m, reason)
  defp follow(m, _impossible), do: fail(m, :protocol)

  # Step 4. The nonce says which attempt is meant.
  defp accept(m) do
    ask(%{m | phase: :accept}, :accept, [guarded(m, nonce: m.nonce, version: @version, state: 1)])
  end

  @impl true
  def give_up(m) do
    if m.entered and m.ending not in [nil, :peer_down, :peer_domain_gone] and m.own != 4 and
         m.store == :up,
       do: refuse(m),
       else: clean(m)
  end

  # The nock reads why, and goes. Rings stay until then: it may have mapped them.
  defp refuse(m) do
    values = [nonce: m.nonce, version: @version, error: Value.refusal(m.ending), state: 6]
    %{m | phase: :refusing, entered: false} |> start(:close) |> ask(:refuse, [guarded(m, values)])
  end

  @impl true
  def lost(m), do: fail(m, :store_lost)

  @impl true
  # A tip does not begin again: the nock knocks anew, and that is another machine's.
  def back(m, _nonce), do: m

  @impl true
  def write_state(m, state), do: guarded(m, state: state)

  defp guarded(m, values) do
    {:transaction, [{:guard, theirs(m) <> "/nonce", [m.nonce]} | writes(m, values)]}
  end

  defp writes(m, values),
    do: for({key, value} <- values, do: {:write, "#{ours(m)}/#{key}", to_string(value)})

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
  # All of the entry, as the nock may have to wait for a new inbox; nobody's if it is not there yet.
  def publish(m) do
    values =
      [nock: theirs(m), nonce: m.nonce, version: @version] ++ values(m.refs) ++ [state: m.own]

    {:transaction,
     [{:guard, theirs(m) <> "/nonce", [nil, m.nonce]}] ++
       Handshake.inbox(m.me, m.peer) ++ writes(m, values)}
  end

  @impl true
  # The entry is ours to remove unless it belongs to a later attempt by now.
  def remove(m) do
    {:transaction,
     [
       {:guard, theirs(m) <> "/nonce", [nil, m.nonce]},
       {:try, {:rm, ours(m)}},
       {:prune, Paths.inbox(m.me, m.peer)},
       {:prune, Paths.tip_root(m.me)}
     ]}
  end

  @impl true
  def theirs(m), do: Paths.nock_node(m.peer, m.me, m.tid)

  defp ours(m), do: Paths.tip_node(m.me, m.peer, m.tid)
  defp nock(m), do: ours(m) <> "/nock"
end
