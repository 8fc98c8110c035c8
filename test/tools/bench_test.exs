defmodule Tube.BenchTest do
  @moduledoc false
  # The arithmetic of the benchmark, and that it still runs. Nothing here checks its figures.
  use ExUnit.Case, async: true

  # bin/bench compiles first, and cargo allows one build at a time in a folder: in a fresh clone
  # other tests build there for minutes.
  @moduletag timeout: 300_000

  @root Path.expand("../..", __DIR__)

  for file <- ~w(stats report), do: Code.compile_file("bench/lib/#{file}.ex", @root)
  alias Tube.Bench.{Report, Stats}

  test "a ratio is taken within its round" do
    # The machine was three times as fast in the last round, which does not change the ratios.
    assert %{value: 20.0, baseline_value: 10.0, ratio: 2.0, ratio_min: 2.0, ratio_max: 2.0} =
             Stats.compare([20, 10, 60], [10, 5, 30])

    assert %{ratio: 2.5, ratio_min: 1.0, ratio_max: 4.0, rounds: 2} =
             Stats.compare([1, 4], [1, 1])
  end

  test "medians and percentiles" do
    assert Stats.median([3, 1, 2]) == 2.0
    assert Stats.median([4, 1, 2, 3]) == 2.5
    values = Enum.shuffle(1..200)
    assert Stats.percentile(values, 50) == 100
    assert Stats.percentile(values, 99) == 198
    assert Stats.percentile([7], 99) == 7
  end

  test "calibration finds the number of messages that fills the time, with any start-up time" do
    # 5 ms before the first message, then 1 us each.
    for wanted <- [1_000_000, 100_000_000, 2_000_000_000] do
      count = Stats.calibrate(wanted, 64, &(5_000_000 + &1 * 1_000))
      assert_in_delta 5_000_000 + count * 1_000, wanted, max(wanted / 4, 5_000_000)
    end

    assert Stats.calibrate(1_000, 1, fn count -> max(count - 1_000, 0) end) > 1_000
  end

  test "a result is a line of JSON with its keys in order" do
    line = %{
      bench: "tube",
      case: "pull_64B",
      metric: "messages_per_s",
      value: 1.9e7,
      baseline: "gen_tcp_unix",
      baseline_value: 4.1e5,
      ratio: 46.34,
      ratio_min: 31.0,
      ratio_max: 58.2,
      rounds: 5,
      idle_cpus: 1.5
    }

    assert Report.json(line) ==
             ~s({"bench":"tube","case":"pull_64B","metric":"messages_per_s","value":1.900e+7,) <>
               ~s("baseline":"gen_tcp_unix","baseline_value":4.100e+5,"ratio":46.34,) <>
               ~s("ratio_min":31.00,"ratio_max":58.20,"rounds":5,"idle_cpus":1.500})
  end

  test "bin/bench measures a case, and prints nothing but results" do
    args = ~w(tube --json --rounds 1 --ms 10 --case pull_64KiB --case rtt_active_p50)
    script = ~s(exec "$0" "$@" 2>/dev/null)
    {out, status} = System.cmd("sh", ["-c", script, Path.join(@root, "bin/bench") | args])
    assert status == 0

    expected =
      for case <- ~w(pull_64KiB rtt_active_p50),
          baseline <- ~w(gen_tcp_loopback gen_tcp_unix socket_unix),
          do: {case, baseline}

    lines = String.split(out, "\n", trim: true)
    assert length(lines) == length(expected)

    for {line, {case, baseline}} <- Enum.zip(lines, expected) do
      assert line =~ ~s("case":"#{case}")
      assert line =~ ~s("baseline":"#{baseline}")
    end
  end

  test "bin/bench dist measures the same nodes over both carriers" do
    args = ~w(dist --json --rounds 1 --ms 10 --case send_64KiB_nofrag --case ping_p50)
    script = ~s(exec "$0" "$@" 2>/dev/null)
    {out, status} = System.cmd("sh", ["-c", script, Path.join(@root, "bin/bench") | args])
    assert status == 0
    assert [send, ping] = String.split(out, "\n", trim: true)
    assert send =~ ~s("bench":"dist","case":"send_64KiB_nofrag")
    assert ping =~ ~s("case":"ping_p50","metric":"us")
    for line <- [send, ping], do: assert(line =~ ~s("baseline":"inet_tcp"))
  end

  test "bin/bench rejects unknown names, and lists the known ones" do
    for {args, text} <- [
          {~w(tubes), ~r/there are: .*tube/},
          {~w(tube --case pull_1B), "there are: pull_64B"},
          {~w(tube --fast), "--fast"},
          # This error comes before the boot.
          {~w(xen --case pull_64B), "there are: rtt_p50"}
        ] do
      {out, status} = System.cmd(Path.join(@root, "bin/bench"), args, stderr_to_stdout: true)
      assert {status, out =~ text} == {2, true}, out
    end
  end
end
