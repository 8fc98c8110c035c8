defmodule Tube.Bench.CLI do
  @moduledoc false
  # The command line of the benches: parses arguments, runs the rounds, prints the results.

  alias Tube.Bench.{Host, Report, Stats}

  @typedoc """
  A bench: its cases, each with `:carriers`, `:baselines` and `:metrics`, and the module that
  measures them, with the functions of `Tube.Bench.Pair`. `:quick` and `:full` override the number
  of rounds and their milliseconds.
  """
  @type bench :: %{
          required(:name) => String.t(),
          required(:cases) => [map],
          required(:pair) => module,
          optional(:quick | :full) => %{rounds: pos_integer, ms: pos_integer}
        }

  @switches [quick: :boolean, json: :boolean, rounds: :integer, ms: :integer, case: :keep]
  # With 40 links, a quick run takes less than 60 s and a full run less than 10 minutes.
  @quick %{rounds: 3, ms: 250}
  @full %{rounds: 7, ms: 2_000}

  @doc "`modules` are those of the bench itself, which the two VMs need too."
  @spec main([String.t()], [module], bench) :: :ok
  def main(argv, modules, bench) do
    options = argv |> parse!(bench) |> Map.put(:bench, bench)

    case System.get_env("TUBE_BENCH_DIR") do
      # bin/bench only checks the arguments.
      nil -> :ok
      dir -> measure_all(dir, modules, options)
    end
  end

  defp measure_all(dir, modules, %{bench: bench} = options) do
    progress(Host.describe())
    unless options.json, do: IO.puts(Report.header())
    pair = bench.pair.start(dir, modules)
    for case <- options.cases, do: measure(pair, case, options)
    bench.pair.stop(pair)
  end

  defp parse!(argv, bench) do
    {switches, rest, invalid} = OptionParser.parse(argv, strict: @switches)
    if invalid != [] or rest != [], do: usage!("invalid arguments: #{arguments(rest, invalid)}")

    defaults =
      if switches[:quick],
        do: Map.get(bench, :quick, @quick),
        else: Map.get(bench, :full, @full)

    rounds = Keyword.get(switches, :rounds, defaults.rounds)
    ms = Keyword.get(switches, :ms, defaults.ms)
    if rounds < 1 or ms < 1, do: usage!("--rounds and --ms must be 1 or more")

    %{
      rounds: rounds,
      ms: ms,
      json: Keyword.get(switches, :json, false),
      cases: chosen(bench.cases, Keyword.get_values(switches, :case))
    }
  end

  defp chosen(cases, []), do: cases

  defp chosen(cases, names) do
    known = for case <- cases, metric <- case.metrics, do: elem(metric, 0)

    for name <- names, name not in known do
      usage!("no case is named #{name}; there are: #{Enum.join(known, " ")}")
    end

    for case <- cases,
        metrics = Enum.filter(case.metrics, &(elem(&1, 0) in names)),
        metrics != [],
        do: %{case | metrics: metrics}
  end

  defp arguments(rest, invalid) do
    unknown = for {switch, value} <- invalid, do: [switch | List.wrap(value)]
    Enum.join(rest ++ List.flatten(unknown), " ")
  end

  @spec usage!(String.t()) :: no_return
  defp usage!(text) do
    IO.puts(:stderr, "bench: #{text}")
    System.halt(2)
  end

  defp measure(pair, case, %{bench: bench} = options) do
    names = Enum.map_join(case.metrics, ", ", &elem(&1, 0))
    subjects = for {_name, _unit, _value, subject} <- case.metrics, do: subject
    carriers = Enum.filter(case.carriers, &(elem(&1, 0) in (subjects ++ case.baselines)))
    links = for carrier <- carriers, do: bench.pair.connect(pair, case, carrier, options.ms)
    idle = Host.idle_cpus()

    # A round measures each link once, so that all share the state of the machine at that time.
    rounds =
      for round <- 1..options.rounds do
        progress("#{names}: round #{round} of #{options.rounds}")
        Map.new(links, &{&1.name, bench.pair.measure(pair, case, &1)})
      end

    for link <- links, do: :ok = bench.pair.disconnect(pair, link)

    for {name, unit, value, subject} <- case.metrics, baseline <- case.baselines do
      of = fn carrier -> Enum.map(rounds, & &1[carrier][value]) end

      Stats.compare(of.(subject), of.(baseline))
      |> Map.merge(%{bench: bench.name, case: name, metric: unit, baseline: baseline})
      |> Map.put(:idle_cpus, idle)
      |> print(options)
    end
  end

  defp print(line, %{json: true}), do: IO.puts(Report.json(line))
  defp print(line, %{json: false}), do: IO.puts(Report.table(line))

  defp progress(text), do: IO.puts(:stderr, "bench: " <> text)
end
