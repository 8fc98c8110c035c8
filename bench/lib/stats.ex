defmodule Tube.Bench.Stats do
  @moduledoc false
  # Medians and ratios of interleaved rounds.

  @spec median([number, ...]) :: float
  def median(values) do
    sorted = Enum.sort(values)
    middle = div(length(sorted), 2)

    if rem(length(sorted), 2) == 1,
      do: Enum.at(sorted, middle) / 1,
      else: (Enum.at(sorted, middle - 1) + Enum.at(sorted, middle)) / 2
  end

  @doc "The smallest value that `percent` of all values do not exceed."
  @spec percentile([number, ...], 1..100) :: number
  def percentile(values, percent) do
    sorted = Enum.sort(values)
    Enum.at(sorted, max(ceil(length(sorted) * percent / 100) - 1, 0))
  end

  @doc """
  The number of messages that take `wanted` nanoseconds. `run` measures a number of messages. Starts
  with `count` and increases it until they take a quarter of `wanted`: a few messages only measure
  the start and the end, which take long between guests. This also warms up both sides.
  """
  @spec calibrate(pos_integer, pos_integer, (pos_integer -> pos_integer)) :: pos_integer
  def calibrate(wanted, count, run) do
    # The clock may not have advanced.
    took = max(run.(count), 1)

    if took >= wanted / 4,
      do: max(round(count * wanted / took), 1),
      else: calibrate(wanted, count * min(max(div(wanted, 3 * took), 2), 16), run)
  end

  @doc "Percentiles in microseconds of round trips in nanoseconds."
  @spec latencies([pos_integer]) :: %{optional(:p50_us | :p99_us) => float}
  def latencies([]), do: %{}

  def latencies(samples),
    do: %{p50_us: percentile(samples, 50) / 1000, p99_us: percentile(samples, 99) / 1000}

  @doc """
  The numbers of one line of the report. `values` and `baseline` have one element per round.

  A ratio is computed within a round, where both saw the same state of the machine. The median of
  these ratios is more reliable than the ratio of the medians.
  """
  @spec compare([number, ...], [number, ...]) :: %{atom => number}
  def compare(values, baseline) when length(values) == length(baseline) do
    ratios = Enum.zip_with(values, baseline, &(&1 / &2))

    %{
      value: median(values),
      baseline_value: median(baseline),
      ratio: median(ratios),
      ratio_min: Enum.min(ratios),
      ratio_max: Enum.max(ratios),
      rounds: length(values)
    }
  end
end
