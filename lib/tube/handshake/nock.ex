defmodule Tube.Handshake.Nock do
  @moduledoc false
  # The side that asks. Phases before the tube is open, with the founding document's steps:
  #
  #     :door      waits for the door and for its service
  #     :knock     steps 1 to 3: our directory, `tip`, `state` 2, in one transaction
  #     :inbox     step 4 and 5: our entry at the tip, as soon as the tip lets us
  #     :entry     step 6: waits for the tip's state 3
  #     :offer     reads references and port
  #     :map       opens them, then writes `state` 4
  #     :confirm   waits for the tip's state 4
  #     :lost      waits for the store to come back

  @behaviour Tube.Handshake.Machine

  alias Tube.{Handshake, Paths}
  alias Tube.Handshake.{Machine, Open, Value}

  import Machine,
    only: [ask: 3, ask_native: 3, clean: 1, fail: 2, free: 1, start: 2, wrote: 2]

  @version Integer.to_string(Handshake.version())

  @doc "Starts to ask `params.peer` for a tube."
  @spec new(Handshake.params()) :: {Machine.t(), [Handshake.op()]}
  def new(params),
    do: __MODULE__ |> Machine.new(params, :door) |> start(:limit) |> watches() |> Machine.flush()

  @spec handle(Machine.t(), Handshake.event()) :: {Machine.t(), [Handshake.op()]}
  defdelegate handle(machine, event), to: Machine

  # Both before the first read: nothing that happens later can be missed.
  defp watches(m) do
    door = Paths.service_directory(m.peer)
    m |> Machine.watch(:door, door, door) |> watch_peer()
  end

  @impl true
  # Step 6. The inbox and the entry are above `state`: their coming and going is told too.
  def watch_peer(m), do: Machine.watch(m, :peer, Paths.inbox(m.peer, m.me), theirs(m) <> "/state")

  @impl true
  def heeds(:door), do: [:door]
  def heeds(phase) when phase in [:inbox, :entry], do: [:peer, :door]
  def heeds(:confirm), do: [:peer]
  def heeds(_phase), do: []

  @impl true
  def look(m, :door) do
    ask(m, :door, [
      {:read, Paths.service_directory_version(m.peer)},
      {:read, Paths.service(m.peer, m.service)}
    ])
  end

  def look(%{phase: :inbox} = m, :peer), do: enter(m)
  def look(m, :peer), do: Machine.ask_peer(m)

  @impl true
  # Whoever answers for the service now is somebody else than the one that we knocked for, and
  # has not heard it. That one may still be at it, so this is a new attempt.
  def answered(%{instance: known} = m, :door, [{:ok, @version}, {:ok, instance}])
      when instance != known do
    nonce = if known, do: Value.next(m.nonce), else: m.nonce
    m = %{m | instance: instance, nonce: nonce, phase: :knock}

    # Whatever an older attempt has left goes in the same moment in which the tip learns of this one.
    ask(m, :knock, [knock(m, 2, [{:try, {:rm, ours(m)}}, {:try, {:rm, theirs(m)}}])])
  end

  def answered(%{phase: :door} = m, :door, [{:ok, version}, _instance]) when version != @version,
    do: fail(m, :version)

  # No door, or not this service: the watch tells when that changes. Or all is as it was.
  def answered(m, :door, _answers), do: m

  def answered(m, :knock, [{:ok, _results}]), do: %{wrote(m, 2) | phase: :inbox} |> enter()
  def answered(m, :knock, [{:error, reason}]), do: fail(m, reason)

  # The write decides: the inbox may have come just before it, and then it has made the entry too.
  def answered(m, :enter, [_mkdir, :ok]), do: %{m | phase: :entry}

  # Not let in yet: the tip makes the inbox, and the watch tells.
  def answered(m, :enter, [_mkdir, {:error, reason}]) when reason in [:enoent, :eacces], do: m
  def answered(m, :enter, [_mkdir, {:error, reason}]), do: fail(m, reason)

  def answered(m, :peer, answers), do: follow(m, Machine.peer(m, answers))

  def answered(m, :offer, answers) do
    case Enum.find(answers, &match?({:error, _}, &1)) do
      nil -> offered(m, for({:ok, value} <- answers, do: value))
      # All of it was written at once: the tip has taken it back.
      {:error, reason} when reason in [:enoent, :eacces] -> fail(m, :peer_down)
      {:error, reason} -> fail(m, reason)
    end
  end

  def answered(m, :connected, [:ok]), do: wrote(m, 4)
  def answered(m, :connected, [{:error, reason}]), do: fail(m, reason)
  def answered(m, :refused, [{:ok, word}]), do: fail(m, Value.refused(word))
  def answered(m, :refused, [{:error, _none}]), do: fail(m, :peer_down)

  @impl true
  def native(m, :ok), do: ask(%{m | phase: :confirm}, :connected, [write_state(m, 4)])

  # Perhaps the tip has gone, and its pages with it: that is what the asker should hear then.
  def native(m, {:error, reason}), do: Machine.ask_peer(%{m | phase: {:unmapped, reason}})

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

        ask_native(%{m | phase: :map}, :map, spec)

      _impossible ->
        fail(m, :protocol)
    end
  end

  defp offered(m, _other_version), do: fail(m, :version)

  # What the tip's half says while we wait for it.
  defp follow(%{phase: :entry} = m, {:state, 1}), do: Machine.saw(m, 1)

  defp follow(%{phase: :entry} = m, {:state, 3}) do
    keys = ~w(version tx-ring-ref rx-ring-ref event-channel)

    m
    |> Machine.saw(3)
    |> Map.put(:phase, :offer)
    |> ask(:offer, for(key <- keys, do: {:read, theirs(m) <> "/" <> key}))
  end

  # Nothing there yet, or what an older attempt has left: ours is still to come.
  defp follow(%{phase: :entry} = m, gone) when gone in [:absent, :other], do: m

  defp follow(%{phase: :confirm} = m, {:state, 3}), do: m
  # 5: the tip was connected, and has closed before we looked.
  defp follow(%{phase: :confirm} = m, {:state, state}) when state in [4, 5] do
    m = m |> Open.enter() |> Machine.saw(4)
    if state == 5, do: %{m | dirty: [:peer]}, else: m
  end

  defp follow(%{phase: :confirm} = m, gone) when gone in [:absent, :other],
    do: fail(m, :peer_down)

  defp follow(%{phase: {:unmapped, _}} = m, gone) when gone in [:absent, :other],
    do: fail(m, :peer_down)

  defp follow(m, {:state, 6}) do
    m |> Machine.saw(6) |> ask(:refused, [{:read, theirs(m) <> "/error"}])
  end

  defp follow(%{phase: {:unmapped, reason}} = m, _still_there), do: fail(m, reason)
  defp follow(m, {:error, reason}), do: fail(m, reason)
  defp follow(m, _impossible), do: fail(m, :protocol)

  # Steps 4 and 5. Doing them twice does no harm.
  defp enter(m) do
    entry = theirs(m)

    ask(%{m | dirty: m.dirty -- [:peer]}, :enter, [
      {:mkdir, entry},
      {:write, entry <> "/nock", ours(m)}
    ])
  end

  # Steps 1 to 3. What the tip is to know of us stands there when it sees the state. Our directory gets its
  # list in so many words, though its parent's reads the same: an entry there for a peer that has ended and
  # come back under its number is void, shown all the same, and handed on.
  defp knock(m, state, first) do
    dir = ours(m)
    values = [tip: theirs(m), service: Paths.escape(m.service), version: @version, nonce: m.nonce]
    parents = [{Paths.nock_root(m.me), n: m.me}, {Paths.outbox(m.me, m.peer), readable(m)}]

    {:transaction,
     first ++
       Handshake.home(m.me) ++
       for({path, perms} <- parents ++ [{dir, readable(m)}], do: {:ensure, path, perms}) ++
       for({key, value} <- values, do: {:write, "#{dir}/#{key}", value}) ++
       [write_state(m, state)]}
  end

  defp readable(m), do: Enum.uniq(n: m.me, r: m.peer)

  @impl true
  def write_state(m, state), do: {:write, ours(m) <> "/state", Integer.to_string(state)}

  @impl true
  def publish(m), do: knock(m, m.own, [])

  @impl true
  # The entry too: the tip removes it, unless it is no more. And all of it even if we never came to
  # knock: what is there then is a dead predecessor's.
  def remove(m) do
    {:transaction,
     [
       {:try, {:rm, ours(m)}},
       {:try, {:rm, theirs(m)}},
       {:prune, Paths.outbox(m.me, m.peer)},
       {:prune, Paths.inbox(m.peer, m.me)},
       {:prune, Paths.nock_root(m.me)}
     ] ++ if(m.me in [0, m.peer], do: [{:prune, Paths.tip_root(m.peer)}], else: [])}
  end

  @impl true
  def theirs(m), do: Paths.tip_node(m.peer, m.me, m.tid)

  defp ours(m), do: Paths.nock_node(m.me, m.peer, m.tid)

  @impl true
  def give_up(m), do: clean(m)

  @impl true
  def lost(m), do: %{m | phase: :lost}

  @impl true
  # The tip has lost the store too, or has seen our nodes vanish. Start again, within the same limit.
  def back(m, nonce) do
    %{free(m) | phase: :door, nonce: nonce, own: nil, seen: nil, dirty: [], instance: knocked(m)}
    |> watches()
  end

  # No instance is called so: any door is new to us, and there is something to remove.
  defp knocked(%{instance: nil}), do: nil
  defp knocked(_m), do: :before
end
