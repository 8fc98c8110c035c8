defmodule Tube.Demo.Screen do
  @moduledoc false
  # Lines for people: colour and a moving bar on a terminal, plain lines everywhere else.

  @bar 40

  @spec title(String.t()) :: :ok
  def title(text), do: IO.puts("\n" <> paint(text, :bright))

  @spec line(String.t()) :: :ok
  def line(text), do: IO.puts("  " <> text)

  @spec faint(String.t()) :: :ok
  def faint(text), do: IO.puts(paint("  " <> text, :faint))

  @doc "Draws the bar; without a terminal only when it is full."
  @spec progress(non_neg_integer, pos_integer, String.t()) :: :ok
  def progress(done, total, text) do
    full = div(done * @bar, total)
    bar = String.duplicate("#", full) <> String.duplicate(".", @bar - full)
    percent = String.pad_leading("#{div(done * 100, total)}", 3)
    line = "  [#{bar}] #{percent} %  #{text}"

    cond do
      # Over the line that was there, whose end may have been longer.
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

  # bin/demo knows: a VM without a shell cannot ask its terminal for anything.
  defp terminal?, do: System.get_env("TUBE_DEMO_TERMINAL") == "1"
end
