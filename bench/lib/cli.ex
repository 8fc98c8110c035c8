defmodule Tube.Bench.CLI do
  @moduledoc false
  # `bin/bench tube`: arguments in, rounds in turn, report out.

  alias Tube.Bench.{Cases, Host, Pair, Report, Stats}

  @switches [quick: :boolean, json: :boolean, rounds: :integer, ms: :integer, case: :keep]
  # Quick fits into 60 s with its 29 links, a full run into 10 minutes.
  @quick %{rounds: 3, ms: 300}
  @full %{rounds: 7, ms: 2_000}

  @doc "`modules` are those of the bench itself, which the two VMs need as well."
  @spec main([String.t()], [module]) :: :ok
  def main(argv, modules) do
    options = parse!(argv)
    progress(Host.describe())
    unless options.json, do: IO.puts(Report.header())

    # bin/bench gives a directory that it removes.
    pair = Pair.start(System.fetch_env!("TUBE_BENCH_DIR"), modules)
    for case <- options.cases, do: measure(pair, case, options)
    Pair.stop(pair)
  end

  @doc false
  def parse!(argv) do
    {switches, rest, invalid} = OptionParser.parse(argv, strict: @switches)
    if invalid != [] or rest != [], do: usage!("what is #{inspect(rest ++ invalid)}?")
    defaults = if switches[:quick], do: @quick, else: @full
    rounds = Keyword.get(switches, :rounds, defaults.rounds)
    ms = Keyword.get(switches, :ms, defaults.ms)
    if rounds < 1 or ms < 1, do: usage!("--rounds and --ms are 1 or more")

    %{
      rounds: rounds,
      ms: ms,
      json: Keyword.get(switches, :json, false),
      cases: chosen(Keyword.get_values(switches, :case))
    }
  end

  defp chosen([]), do: Cases.all()

  defp chosen(names) do
    for name <- names, name not in Cases.names() do
      usage!("no case is called #{name}; there are: #{Enum.join(Cases.names(), " ")}")
    end

    for case <- Cases.all(),
        metrics = Enum.filter(case.metrics, &(elem(&1, 0) in names)),
        metrics != [],
        do: %{case | metrics: metrics}
  end

  @spec usage!(String.t()) :: no_return
  defp usage!(text) do
    IO.puts(:stderr, "bench: #{text}")
    System.halt(2)
  end

  defp measure(pair, case, options) do
    names = Enum.map_join(case.metrics, ", ", &elem(&1, 0))
    carriers = [{"tube", Tube.Bench.Carrier.Tube} | case.carriers]
    links = for carrier <- carriers, do: Pair.connect(pair, case, carrier, options.ms)
    idle = Host.idle_cpus()

    # A round is one measurement of each, so that all see the same moments of the machine.
    rounds =
      for round <- 1..options.rounds do
        progress("#{names}: round #{round} of #{options.rounds}")
        Map.new(links, &{&1.name, Pair.measure(pair, case, &1)})
      end

    for link <- links, do: :ok = Pair.disconnect(pair, link)

    for {name, unit, value} <- case.metrics, {baseline, _module} <- case.carriers do
      of = fn carrier -> Enum.map(rounds, & &1[carrier][value]) end

      Stats.compare(of.("tube"), of.(baseline))
      |> Map.merge(%{bench: "tube", case: name, metric: unit, baseline: baseline})
      |> Map.put(:idle_cpus, idle)
      |> print(options)
    end
  end

  defp print(line, %{json: true}), do: IO.puts(Report.json(line))
  defp print(line, %{json: false}), do: IO.puts(Report.table(line))

  defp progress(text), do: IO.puts(:stderr, "bench: " <> text)
end
