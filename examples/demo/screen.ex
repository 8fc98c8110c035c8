defmodule Tube.Demo.Screen do
  @moduledoc false
  # Output for people: colours and a progress bar on a terminal, plain lines elsewhere.

  @bar 40

  @spec title(String.t()) :: :ok
  def title(text), do: IO.puts("\n" <> paint(text, :bright))

  @spec line(String.t()) :: :ok
  def line(text), do: IO.puts("  " <> text)

  @doc "Draws the bar. Without a terminal, draws only the full bar."
  @spec progress(non_neg_integer, pos_integer, String.t()) :: :ok
  def progress(done, total, text) do
    full = div(done * @bar, total)
    bar = String.duplicate("#", full) <> String.duplicate(".", @bar - full)
    percent = String.pad_leading("#{div(done * 100, total)}", 3)
    line = "  [#{bar}] #{percent} %  #{text}"

    cond do
      # Overwrite the previous line, which may have been longer.
      terminal?() -> IO.write("\r" <> line <> "\e[K" <> if(done == total, do: "\n", else: ""))
      done == total -> IO.puts(line)
      true -> :ok
    end
  end

  @spec ok(String.t()) :: :ok
  def ok(text), do: IO.puts(paint(text, :green))

  @spec failed(String.t()) :: :ok
  def failed(text), do: IO.puts(:stderr, paint(text, :red))

  defp paint(text, style) do
    if terminal?() and System.get_env("NO_COLOR", "") == "",
      do: IO.ANSI.format([style, text], true) |> IO.iodata_to_binary(),
      else: text
  end

  # bin/demo sets this, because a VM without a shell does not know its terminal.
  defp terminal?, do: System.get_env("TUBE_DEMO_TERMINAL") == "1"
end
