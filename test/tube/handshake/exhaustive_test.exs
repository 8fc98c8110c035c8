for file <- ~w(store endpoint invariants choices model explorer broken),
    do: Code.require_file("#{file}.ex", __DIR__)

defmodule Tube.Handshake.ExhaustiveCase do
  @moduledoc false
  use ExUnit.CaseTemplate

  alias Tube.Handshake.Explorer

  using do
    quote do
      import Tube.Handshake.ExhaustiveCase
      @moduletag timeout: :infinity
    end
  end

  setup_all context do
    {:ok, total} = Agent.start(fn -> 0 end)

    on_exit(fn ->
      states = Agent.get(total, & &1)
      if states > 0, do: IO.puts("\n#{inspect(context.module)}: #{states} states")
      Agent.stop(total)
    end)

    {:ok, total: total}
  end

  @doc """
  Walks all runs, in all orders. A failure shows the run that leads to it.

  There must be at least `least` states: far fewer would mean that the walk misses something.
  """
  def walk(%{total: total}, options, least) do
    case Explorer.explore(options) do
      {:ok, states} ->
        Agent.update(total, &(&1 + states))
        assert states >= least

      {:wrong, text, run} ->
        flunk("#{text}\nafter\n" <> Enum.map_join(run, "\n", &inspect(&1, limit: 12)))
    end
  end
end

defmodule Tube.Handshake.MakingTest do
  use Tube.Handshake.ExhaustiveCase, async: true

  # Timers fire at any moment, or with `early: []` when nothing else is under way. With
  # `connects: true` both must be connected in the end: nobody dies, closes or runs out of time.
  @crashes for role <- [:nock, :tip], how <- [:vm, :domain], do: {role, how}

  @scenes [
    {"time-outs at any moment", [], 40_000},
    {"a crash of either, as a VM or as a whole domain, and time-outs at any moment",
     [budget: [crash: @crashes]], 40_000},
    {"a crash of either, an intruder's interference, and spurious watch events",
     [early: [], budget: [crash: @crashes, intruder: 1, spurious: 1]], 15_000},
    {"an intruder's interference, and spurious watch events",
     [early: [], connects: true, budget: [spurious: 1, intruder: 1]], 10_000},
    {"late replies", [early: [], connects: true, late: true], 5_000},
    {"another tube of the pair ends, on either side",
     [early: [], connects: true, budget: [sibling: 2]], 5_000},
    {"a service that is published later", [early: [], service: :absent], 5_000},
    {"the owner of the nock closes", [early: [], budget: [close: [:nock]]], 5_000},
    {"the owner of the tip closes", [early: [], budget: [close: [:tip]]], 10_000},
    {"a transaction that fails", [early: [], budget: [fault: 1]], 3_000},
    {"rings that cannot be allocated or mapped", [early: [], budget: [native: 1]], 2_000},
    {"an impossible or untimely value of the peer", [early: [], budget: [garbage: 1]], 10_000},
    {"a refusal", [verdict: {:refuse, :busy}], 2_000},
    {"oxenstored's rules",
     [early: [], flavour: :o, budget: [close: [:nock], crash: @crashes, intruder: 1]], 3_000}
  ]

  for {name, options, least} <- @scenes do
    test "#{name}: both connected, or both clean with a reason", context do
      walk(context, unquote(Macro.escape(options)), unquote(least))
    end
  end

  test "the remains of two dead predecessors are replaced", context do
    nock_node = "/local/domain/7/data/nock/5/0"
    tip_node = "/local/domain/5/data/tip/7/0"

    left = [
      {7,
       {:transaction,
        [
          {:ensure, "/local/domain/7/data/nock/5", n: 7, r: 5},
          {:write, nock_node <> "/nonce", "dead"},
          {:write, nock_node <> "/state", "4"}
        ]}},
      {5, {:transaction, Tube.Handshake.Directory.ensure_inbox(5, 7)}},
      {7, {:write, tip_node <> "/nock", nock_node}},
      {5, {:write, tip_node <> "/nonce", "dead"}},
      {5, {:write, tip_node <> "/state", "4"}}
    ]

    walk(context, [early: [], connects: true, left: left], 1_000)
  end
end

defmodule Tube.Handshake.EndingTest do
  use Tube.Handshake.ExhaustiveCase, async: true

  @crashes for role <- [:nock, :tip], how <- [:vm, :domain], do: {role, how}

  @scenes [
    {"either closes or both at once, and a crash of either on the way",
     [budget: [close: [:nock, :tip], crash: @crashes]], 30_000},
    {"owners that never drain their rings", [lazy: true, budget: [close: [:nock, :tip]]], 5_000},
    {"either closes, under oxenstored's rules",
     [early: [], flavour: :o, budget: [close: [:nock, :tip]]], 1_000},
    {"a nock that starts again while the tip of the old one still lives",
     [early: [], connects: true, budget: [crash: [{:nock, :vm}], again: true]], 40_000},
    {"the store's connection is lost while one closes",
     [early: [], budget: [store: :alive, close: [:tip]]], 1_500},
    {"the store restarts empty while one closes",
     [early: [], budget: [store: :restarted, close: [:nock]]], 10_000},
    {"the store restarts and one crashes",
     [early: [], budget: [store: :restarted, crash: @crashes]], 2_000}
  ]

  for {name, options, least} <- @scenes do
    test "#{name}: both clean with a reason, or as before", context do
      walk(context, [from: :open] ++ unquote(Macro.escape(options)), unquote(least))
    end
  end
end

defmodule Tube.Handshake.RandomTest do
  # All choices at once, several times in one run: too many states to walk them all.
  use Tube.Handshake.ExhaustiveCase, async: true

  alias Tube.Handshake.Explorer

  @runs 2_000
  @long_runs 20_000

  test "random runs end connected, or clean with a reason" do
    stroll(@runs)
  end

  @tag :long
  test "many random runs end connected, or clean with a reason" do
    stroll(@long_runs)
  end

  defp stroll(runs) do
    seed = ExUnit.configuration()[:seed]

    for n <- 1..runs do
      :rand.seed(:exsss, {seed, n, 0})

      case Explorer.stroll(options()) do
        {:wrong, text, run} ->
          flunk(
            "#{text}\nin run #{n}, after\n" <> Enum.map_join(run, "\n", &inspect(&1, limit: 12))
          )

        {:ok, _steps} ->
          :ok
      end
    end
  end

  defp options do
    from = Enum.random([:start, :open])
    crashes = for role <- [:nock, :tip], how <- [:vm, :domain], do: {role, how}

    [
      from: from,
      service: if(from == :open, do: :published, else: Enum.random([:published, :absent])),
      flavour: Enum.random([:c, :o]),
      late: Enum.random([true, false]),
      budget: [
        close: Enum.random([[], [:nock], [:tip], [:nock, :tip]]),
        crash: Enum.random([[], crashes]),
        again: Enum.random([true, false]),
        store: Enum.random([nil, :alive, :restarted]),
        spurious: 3,
        intruder: 1,
        sibling: 2,
        fault: Enum.random([0, 0, 1]),
        native: Enum.random([0, 0, 1])
      ]
    ]
  end
end

defmodule Tube.Handshake.MutationTest do
  # The explorer must find the fault of each broken machine, or the tests above would prove nothing.
  use Tube.Handshake.ExhaustiveCase, async: true

  alias Tube.Handshake.{Broken, Explorer, Nock, Tip}

  defp wrong(machines, options) do
    machines = Enum.into(machines, %{nock: Nock, tip: Tip})

    case Explorer.explore([machines: machines] ++ options) do
      {:wrong, text, _run} -> text
      {:ok, states} -> flunk("nothing wrong in #{states} states")
    end
  end

  @again [early: [], budget: [crash: [{:nock, :vm}], again: true]]

  test "a nock without a limit" do
    assert wrong([nock: Broken.NoLimit], early: [], service: :absent) =~ "waits for ever: :nock"
  end

  test "a tip that waits for its owner without a limit" do
    # The owner never drains the ring: without :drained only the timer would end it.
    assert wrong([tip: Broken.NoDrainLimit], from: :open, lazy: true, budget: [close: [:nock]]) =~
             "waits for ever"
  end

  test "a nock that takes the remains of an older attempt for its own" do
    # It takes a long run, but not a rare one.
    options = [machines: %{nock: Broken.Trusting, tip: Tip}] ++ @again

    assert Enum.any?(1..2_000, fn n ->
             :rand.seed(:exsss, {n, 0, 0})
             match?({:wrong, _text, _run}, Explorer.stroll(options))
           end)
  end

  test "a tip that does not check whose attempt it serves" do
    assert wrong([tip: Broken.Unguarded], [from: :open, connects: true] ++ @again) =~
             "nobody is connected"
  end

  test "a nock that keeps its rings" do
    assert wrong([nock: Broken.Hoarder], from: :open, budget: [close: [:nock]]) =~
             "rings are left"
  end

  test "a tip that leaves its half behind" do
    assert wrong([tip: Broken.Untidy], from: :open, budget: [crash: [{:nock, :vm}]]) =~
             "nodes are left"
  end

  test "an inbox that every domain may write" do
    assert wrong([tip: Broken.Generous], early: []) =~ "domain 9 may write"
  end
end

defmodule Tube.Handshake.LongTest do
  # For bin/test --long: more of what may happen, in one run.
  use Tube.Handshake.ExhaustiveCase, async: true

  @moduletag :long
  @crashes for role <- [:nock, :tip], how <- [:vm, :domain], do: {role, how}

  @scenes [
    {"a failed transaction, no memory for rings, and either closes",
     [early: [], budget: [fault: 1, native: 1, close: [:nock, :tip]]], 80_000},
    {"either closes, and a crash of either",
     [early: [], budget: [close: [:nock, :tip], crash: @crashes]], 80_000},
    {"either closes, and answers are late",
     [early: [], late: true, budget: [close: [:nock, :tip]]], 180_000},
    {"the store starts anew, the tip closes, and spurious watch events",
     [from: :open, early: [], budget: [store: :restarted, close: [:tip], spurious: 1]], 150_000},
    {"a failed transaction, either closes, a crash of either, and time-outs at any moment",
     [from: :open, budget: [close: [:nock, :tip], crash: @crashes, fault: 1]], 90_000}
  ]

  for {name, options, least} <- @scenes do
    test "#{name}: both connected, or both clean with a reason", context do
      walk(context, unquote(Macro.escape(options)), unquote(least))
    end
  end
end
