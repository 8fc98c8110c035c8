for file <- ~w(store model explorer broken),
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

  @doc "All runs, in all orders: what is wrong is told with the run that leads there."
  def walk(options) do
    case Explorer.explore(options) do
      {:ok, states} ->
        # So many that nobody would have thought of them, and so few that they were all seen.
        states

      {:wrong, text, run} ->
        flunk("#{text}\nafter\n" <> Enum.map_join(run, "\n", &inspect(&1, limit: 12)))
    end
  end

  def all_crashes, do: for(role <- [:nock, :tip], how <- [:vm, :domain], do: {role, how})
end

defmodule Tube.Handshake.MakingTest do
  use Tube.Handshake.ExhaustiveCase, async: true

  # Without `early: []` timers fire at any moment; with it, when nothing else is under way. The
  # number of states is part of the test: far fewer would mean that something is not walked any more.
  @scenes [
    {"time-outs at any moment", [], 60_000},
    {"a crash of either, as a VM or as a whole domain, and a stranger's interference",
     [
       early: [],
       budget: [crash: for(r <- [:nock, :tip], h <- [:vm, :domain], do: {r, h}), stranger: 1]
     ], 5_000},
    {"a spurious watch event", [early: [], budget: [spurious: 1]], 20_000},
    {"answers that are late", [early: [], late: true], 10_000},
    {"a door that opens later", [early: [], door: :closed], 10_000},
    {"the owner of the nock closes", [early: [], budget: [close: [:nock]]], 8_000},
    {"another tube of the pair ends", [early: [], budget: [sibling: 1]], 8_000},
    {"a transaction that fails", [early: [], budget: [fault: 1]], 5_000},
    {"rings that cannot be had", [early: [], budget: [native: 1]], 4_000},
    {"an impossible or untimely value of the peer", [early: [], budget: [garbage: 1]], 20_000},
    {"a refusal", [verdict: {:refuse, :busy}], 5_000},
    {"a stranger's interference under oxenstored's rules",
     [early: [], flavour: :o, budget: [close: [:nock], stranger: 1]], 5_000}
  ]

  for {name, options, least} <- @scenes do
    test "#{name}: both connected, or both clean with a reason" do
      assert walk(unquote(Macro.escape(options))) > unquote(least)
    end
  end

  test "what two dead predecessors left is replaced" do
    knock = "/local/domain/7/data/nock/5/0"
    entry = "/local/domain/5/data/tip/7/0"

    left = [
      {7,
       {:transaction,
        [
          {:ensure, "/local/domain/7/data/nock/5", n: 7, r: 5},
          {:write, knock <> "/nonce", "dead"},
          {:write, knock <> "/state", "4"}
        ]}},
      {5, {:transaction, Tube.Handshake.inbox(5, 7)}},
      {7, {:write, entry <> "/nock", knock}},
      {5, {:write, entry <> "/nonce", "dead"}},
      {5, {:write, entry <> "/state", "4"}}
    ]

    assert walk(early: [], left: left) > 3_000
  end
end

defmodule Tube.Handshake.EndingTest do
  use Tube.Handshake.ExhaustiveCase, async: true

  @scenes [
    {"either closes or both at once, and a crash of either on the way",
     [
       budget: [
         close: [:nock, :tip],
         crash: for(r <- [:nock, :tip], h <- [:vm, :domain], do: {r, h})
       ]
     ], 30_000},
    {"either closes, under oxenstored's rules", [flavour: :o, budget: [close: [:nock, :tip]]],
     15_000},
    {"a nock that starts again while the tip of the old one is still there",
     [early: [], budget: [crash: [{:nock, :vm}], again: true]], 50_000},
    {"the store's connection is lost while one closes",
     [early: [], budget: [store: :alive, close: [:tip]]], 1_500},
    {"the store starts anew and empty while one closes",
     [early: [], budget: [store: :restarted, close: [:nock]]], 10_000},
    {"the store starts anew and one crashes",
     [
       early: [],
       budget: [
         store: :restarted,
         crash: for(r <- [:nock, :tip], h <- [:vm, :domain], do: {r, h})
       ]
     ], 2_000}
  ]

  for {name, options, least} <- @scenes do
    test "#{name}: both clean with a reason, or as before" do
      assert walk([from: :open] ++ unquote(Macro.escape(options))) > unquote(least)
    end
  end

  test "the owner of a tip closes, at any moment of the handshake" do
    assert walk(early: [], budget: [close: [:tip]]) > 15_000
  end
end

defmodule Tube.Handshake.MutationTest do
  # What the explorer would say if a machine were broken: else all the above would prove nothing.
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
    assert wrong([nock: Broken.NoLimit], early: [], door: :closed) =~ "waits for ever: :nock"
  end

  test "a tip that waits for its owner without a limit" do
    # The owner that never takes what is left: no :drained, only the timer would end it.
    assert wrong([tip: Broken.NoDrainLimit], from: :open, lazy: true, budget: [close: [:nock]]) =~
             "waits for ever"
  end

  test "a nock that does not look at the nonce" do
    assert wrong([nock: Broken.Trusting], @again) =~ "not to each other"
  end

  test "a tip that does not mind whose attempt it serves" do
    assert wrong([tip: Broken.Unguarded], [from: :open] ++ @again) != nil
  end

  test "a nock that keeps its rings" do
    assert wrong([nock: Broken.Hoarder], from: :open, budget: [close: [:nock]]) =~
             "rings are left"
  end

  test "a tip that leaves its half behind" do
    assert wrong([tip: Broken.Untidy], from: :open, budget: [crash: [{:nock, :vm}]]) =~
             "nodes are left"
  end

  test "an inbox that everybody may write" do
    assert wrong([tip: Broken.Generous], early: []) =~ "domain 9 may write"
  end
end
