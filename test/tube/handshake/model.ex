defmodule Tube.Handshake.Model do
  @moduledoc false
  # The domains of a nock (7), a tip (5) and an intruder (9) around one xenstore, as a state and the
  # steps that lead on from it.
  #
  # Every request of an endpoint is a step of its own, as is its reply, each watch event and each
  # timer: so the runs contain all orders. A watch event only means "something changed here", so
  # several may arrive as one, arbitrarily late. `budget` bounds what else a run may contain:
  #
  #     close: [:nock, :tip]      the owner closes, at any moment
  #     crash: [{:nock, :vm}, {:tip, :domain}]   one of these, at any moment
  #     spurious: n               watch events without a change
  #     intruder: n               domain 9 changes any node, if the store lets it
  #     sibling: n                the end of another tube prunes the parents
  #     fault: n                  a transaction fails for good
  #     garbage: n                a read of the peer's half returns another value
  #     native: n                 allocating or mapping fails
  #     store: :alive | :restarted   the store's connection is lost and comes back
  #     again: true               after a crash of its VM, an endpoint starts again

  alias Tube.Handshake
  alias Tube.Handshake.{Choices, Directory, Endpoint, OpenRequest, TestStore}
  import Endpoint, only: [changed: 3, event: 3, start: 4, update: 3]

  @nock 7
  @tip 5
  @intruder 9
  @tid 0
  @service "default"
  @nonces ~w(00000000000000a0 00000000000000b0 00000000000000c0)

  defstruct [
    :store,
    :flavour,
    :machines,
    :budget,
    # Endpoints by name: :nock, and one tip for each open request: {:tip, 1}, {:tip, 2}.
    endpoints: %{},
    # The service in the store: :absent, its instance, or {:stale | :lost, instance}.
    service: :absent,
    # The dispatcher's watch has fired; nonces for which it has started tips.
    woken: false,
    started: [],
    crashed: [],
    store_lost: false,
    late: false,
    verdict: :accept,
    # Owners never drain a ring.
    lazy: false,
    # Nothing can prevent a connection: both must be connected in the end.
    connects: false,
    # Timers that may fire at any moment; the others fire when nothing else is under way.
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
            intruder: 0,
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
          TestStore.new([@nock, @tip, @intruder]),
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
    |> then(
      &if(Keyword.get(options, :service, :published) == :published,
        do: publish(&1, "one"),
        else: &1
      )
    )
    |> then(&if(Keyword.get(options, :from) == :open, do: run(&1), else: &1))
  end

  # Runs until nothing is under way, without any time-out.
  defp run(w) do
    case %{w | early: []} |> steps() |> elem(0) do
      [{_label, next} | _] -> run(%{next | early: w.early})
      [] -> w
    end
  end

  # What dead predecessors of the nock, or of both, have left.
  defp left({domid, request}, store) do
    {result, store, _fired} = TestStore.request(store, :c, domid, request)
    true = result == :ok or match?({:ok, _}, result)
    store
  end

  @doc """
  All steps from here: `{progress, choices}`, each a list of `{label, state}`. A run may end without
  taking any of the choices.
  """
  def steps(w) do
    progress =
      Enum.flat_map(w.endpoints, fn {name, endpoint} -> Endpoint.steps(w, name, endpoint) end) ++
        dispatcher_steps(w) ++ back_steps(w)

    progress = if progress == [], do: Endpoint.timers(w, &(&1 != :clean)), else: progress
    progress = if progress == [], do: Endpoint.timers(w, &(&1 == :clean)), else: progress
    {progress, Choices.all(w)}
  end

  ## The tip's dispatcher

  @doc "The tip's VM publishes its service."
  def publish(w, instance) do
    dead = for {:stale, dead} <- [w.service], do: dead

    {{:ok, _}, store, fired} =
      TestStore.request(
        w.store,
        w.flavour,
        @tip,
        Directory.publish_service(@tip, @service, instance, dead)
      )

    changed(%{w | service: instance, woken: true}, store, fired)
  end

  defp dispatcher_steps(%{service: service, woken: true} = w) when is_binary(service) do
    w = %{w | woken: false}
    reads = OpenRequest.reads(@nock, @tip, @tid)

    results =
      for request <- reads,
          do: w.store |> TestStore.request(w.flavour, @tip, request) |> elem(0)

    case OpenRequest.parse(results, @nock, @tip, @tid) do
      {:request, %{nonce: nonce, service: @service}} ->
        [{:start_tip, start_tip(w, nonce, w.verdict)}]

      {:refuse, %{nonce: nonce}, word} ->
        [{:start_tip, start_tip(w, nonce, {:refuse, word})}]

      :ignore ->
        [{:no_request, w}]
    end
  end

  defp dispatcher_steps(_w), do: []

  defp start_tip(w, nonce, verdict) do
    if nonce in w.started do
      w
    else
      n = length(w.started) + 1

      start(%{w | started: [nonce | w.started]}, {:tip, n}, :tip, %{
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
      {name, %{down: true}} <- w.endpoints,
      do:
        {{name, :store_back},
         w
         |> update(name, &%{&1 | down: false})
         |> event(name, {:store_back, Enum.at(@nonces, 1)})}
    ) ++
      for(
        {:lost, instance} <- [w.service],
        do: {:publish_again, publish(%{w | service: :absent}, instance)}
      )
  end
end
