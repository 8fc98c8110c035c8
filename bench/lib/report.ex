defmodule Tube.Bench.Report do
  @moduledoc false
  # Formats results as JSON lines, or as a table with a bar for each ratio.

  @type line :: %{
          bench: String.t(),
          case: String.t(),
          metric: String.t(),
          value: float,
          baseline: String.t(),
          baseline_value: float,
          ratio: float,
          ratio_min: float,
          ratio_max: float,
          rounds: pos_integer,
          idle_cpus: float
        }

  @keys ~w(bench case metric value baseline baseline_value ratio ratio_min ratio_max rounds idle_cpus)a
  @bar 24

  @spec json(line) :: String.t()
  def json(line) do
    fields = for key <- @keys, do: ~s("#{key}":#{encode(Map.fetch!(line, key))})
    "{" <> Enum.join(fields, ",") <> "}"
  end

  @spec header() :: String.t()
  def header do
    row("case", "metric", "value", "baseline", "its value", "ratio") <> "  (minimum to maximum)"
  end

  @spec table(line) :: String.t()
  def table(line) do
    row(
      line.case,
      line.metric,
      number(line.value),
      line.baseline,
      number(line.baseline_value),
      number(line.ratio)
    ) <> "  " <> bar(line.ratio) <> " (#{number(line.ratio_min)} to #{number(line.ratio_max)})"
  end

  # No string in a line needs escaping.
  defp encode(value) when is_binary(value), do: ~s("#{value}")
  defp encode(value) when is_integer(value), do: Integer.to_string(value)
  # No measurement is more precise than four digits.
  defp encode(value) when is_float(value), do: :io_lib.format("~.4g", [value]) |> to_string()

  defp row(a, b, c, d, e, f) do
    [{a, -22}, {b, -15}, {c, 8}, {d, -17}, {e, 10}, {f, 7}]
    |> Enum.map_join(" ", fn {text, width} ->
      if width < 0,
        do: String.pad_trailing(text, -width),
        else: String.pad_leading(text, width)
    end)
  end

  # Logarithmic from 1/64 to 64 with 1 in the middle, so that 1/2 and 2 are equally far from 1.
  defp bar(ratio) do
    length = round(@bar / 2 + :math.log2(ratio) * @bar / 12) |> max(0) |> min(@bar)
    "[" <> String.duplicate("#", length) <> String.duplicate(" ", @bar - length) <> "]"
  end

  @spec number(float) :: String.t()
  def number(value) do
    {scaled, unit} =
      cond do
        value >= 1.0e9 -> {value / 1.0e9, "G"}
        value >= 1.0e6 -> {value / 1.0e6, "M"}
        value >= 1.0e3 -> {value / 1.0e3, "k"}
        true -> {value / 1, ""}
      end

    decimals = if scaled >= 100, do: 0, else: if(scaled >= 10, do: 1, else: 2)
    :erlang.float_to_binary(scaled, decimals: decimals) <> unit
  end
end
