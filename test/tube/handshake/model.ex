defmodule Tube.Handshake.Model do
  @moduledoc false
  # A nock's domain (7), a tip's domain (5) and a stranger's (9) around one xenstore, as a state
  # and the steps that can be taken from it.
  #
  # Every request of a party is carried out by the store in a step of its own, its answer arrives
  # in another, each watch event in another, each timer fires in another: so all orders are
  # among the runs. Watch events carry no more than "something changed here", so several of them
  # may arrive as one, as late as can be. What a run may contain besides is bounded by `budget`:
  #
  #     close: [:nock, :tip]      the owner closes, at any moment
  #     crash: [{:nock, :vm}, {:tip, :domain}]   one of these, at any moment
  #     spurious: n               watch events without a cause
  #     stranger: n               what domain 9 does to any node, if the store lets it
  #     sibling: n                another tube's end prunes the parents
  #     fault: n                  a transaction fails for good
  #     garbage: n                the peer's half shows another value when it is read
  #     native: n                 allocating or mapping fails
  #     store: :alive | :restarted   the store's connection is lost and comes back
  #     again: true               after a crash of its VM, a party starts anew with the same tube number

  alias Tube.Handshake
  alias Tube.Handshake.{Chances, OpenRequest, Party, TestStore}
  import Party, only: [changed: 3, event: 3, start: 4, update: 3]

  @nock 7
  @tip 5
  @stranger 9
  @tid 0
  @service "default"
  @nonces ~w(00000000000000a0 00000000000000b0 00000000000000c0)

  defstruct [
    :store,
    :flavour,
    :machines,
    :budget,
    # Parties by name: :nock, and one tip for each knock that was let in: {:tip, 1}, {:tip, 2}.
    parties: %{},
    # :closed, the instance that stands there, or {:stale, instance}
    door: :closed,
    # The door's watch has fired; nonces that it has let in.
    rung: false,
    let_in: [],
    crashed: [],
    store_lost: false,
    late: false,
    verdict: :accept,
    # Owners never take what is left in a ring.
    lazy: false,
    # Nothing here hinders the two: they must be connected in the end.
    connects: false,
    # Timers that may fire before their time; the others fire when nothing else is under way.
    early: [:limit, :close, :drain, :grace, :vanished]
  ]

  @doc "The state before the first step; with `from: :open` one in which both are connected."
  def new(options) do
    %__MODULE__{
      flavour: Keyword.get(options, :flavour, :c),
      late: Keyword.get(options, :late, false),
      verdict: Keyword.get(options, :verdict, :accept),
      lazy: Keyword.get(options, :lazy, false),
      connects: Keyword.get(options, :connects, false),
      early: Keyword.get(options, :early, [:limit, :close, :drain, :grace, :vanished]),
      machines: Keyword.get(options, :machines, %{nock: Handshake.Nock, tip: Handshake.Tip}),
      budget:
        Map.merge(
          %{
            close: [],
            crash: [],
            spurious: 0,
            stranger: 0,
            sibling: 0,
            fault: 0,
            garbage: 0,
            native: 0,
            store: nil,
            again: false
          },
          Map.new(Keyword.get(options, :budget, []))
        ),
      store:
        Enum.reduce(
          Keyword.get(options, :left, []),
          TestStore.new([@nock, @tip, @stranger]),
          &left/2
        )
    }
    |> start(:nock, :nock, %{
      me: @nock,
      peer: @tip,
      tid: @tid,
      nonce: hd(@nonces),
      service: @service
    })
    |> then(&if(Keyword.get(options, :door, :open) == :open, do: open_door(&1, "one"), else: &1))
    |> then(&if(Keyword.get(options, :from) == :open, do: run(&1), else: &1))
  end

  # Until nothing is under way, without any time-out.
  defp run(w) do
    case %{w | early: []} |> steps() |> elem(0) do
      [{_label, next} | _] -> run(%{next | early: w.early})
      [] -> w
    end
  end

  # What a dead predecessor of the nock, or of both, has left behind.
  defp left({domid, request}, store) do
    {result, store, _fired} = TestStore.request(store, :c, domid, request)
    true = result == :ok or match?({:ok, _}, result)
    store
  end

  @doc """
  All steps from here: `{progress, chances}`, each a list of `{label, state}`. Chances may happen, and
  may as well not.
  """
  def steps(w) do
    progress =
      Enum.flat_map(w.parties, fn {name, party} -> Party.steps(w, name, party) end) ++
        door_steps(w) ++ back_steps(w)

    progress = if progress == [], do: Party.timers(w, &(&1 != :clean)), else: progress
    progress = if progress == [], do: Party.timers(w, &(&1 == :clean)), else: progress
    {progress, Chances.all(w)}
  end

  ## The tip's door

  @doc "The tip's VM says that it takes tubes."
  def open_door(w, instance) do
    dead = for {:stale, dead} <- [w.door], do: dead

    {{:ok, _}, store, fired} =
      TestStore.request(
        w.store,
        w.flavour,
        @tip,
        Handshake.open_door(@tip, @service, instance, dead)
      )

    changed(%{w | door: instance, rung: true}, store, fired)
  end

  defp door_steps(%{door: door, rung: true} = w) when is_binary(door) do
    w = %{w | rung: false}
    requests = OpenRequest.requests(@nock, @tip, @tid)

    results =
      for request <- requests,
          do: w.store |> TestStore.request(w.flavour, @tip, request) |> elem(0)

    case OpenRequest.judge(results, @nock, @tip, @tid) do
      {:knock, %{nonce: nonce, service: @service}} -> [{:knock, let_in(w, nonce, w.verdict)}]
      {:refuse, %{nonce: nonce}, word} -> [{:knock, let_in(w, nonce, {:refuse, word})}]
      :ignore -> [{:no_knock, w}]
    end
  end

  defp door_steps(_w), do: []

  defp let_in(w, nonce, verdict) do
    if nonce in w.let_in do
      w
    else
      n = length(w.let_in) + 1

      start(%{w | let_in: [nonce | w.let_in]}, {:tip, n}, :tip, %{
        me: @tip,
        peer: @nock,
        tid: @tid,
        nonce: nonce,
        verdict: verdict
      })
    end
  end

  ## The store is back

  defp back_steps(w) do
    for(
      {name, %{down: true}} <- w.parties,
      do:
        {{name, :store_back},
         w
         |> update(name, &%{&1 | down: false})
         |> event(name, {:store_back, Enum.at(@nonces, 1)})}
    ) ++
      for(
        {:lost, instance} <- [w.door],
        do: {:door_back, open_door(%{w | door: :closed}, instance)}
      )
  end
end
