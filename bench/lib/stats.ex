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
  How many messages fill `wanted` nanoseconds, where `run` says how long a number of them takes. Begins with
  `count`, and more of them until they take a quarter of that: a few only tell how long it takes to begin and
  to end, which between guests is long. This warms up both sides as well.
  """
  @spec calibrate(pos_integer, pos_integer, (pos_integer -> pos_integer)) :: pos_integer
  def calibrate(wanted, count, run) do
    # Of a clock that stood still.
    took = max(run.(count), 1)

    if took >= wanted / 4,
      do: max(round(count * wanted / took), 1),
      else: calibrate(wanted, count * min(max(div(wanted, 3 * took), 2), 16), run)
  end

  @doc "Of round trips in nanoseconds: what a case may report, in microseconds."
  @spec latencies([pos_integer]) :: %{optional(:p50_us | :p99_us) => float}
  def latencies([]), do: %{}

  def latencies(samples),
    do: %{p50_us: percentile(samples, 50) / 1000, p99_us: percentile(samples, 99) / 1000}

  @doc """
  One line of the report: `values` and `baseline` are the rounds in order, one of each per round.

  A ratio is taken within a round, where both had the same machine; the median of those ratios
  says more than the ratio of two medians.
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
