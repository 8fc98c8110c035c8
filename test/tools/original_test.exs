defmodule Tube.Tools.OriginalTest do
  # docs/original.md names a test for each defect of the original. That test must exist.
  use ExUnit.Case, async: true

  @root Path.expand("../..", __DIR__)

  test "there are forty defects, and each names tests that exist" do
    rows =
      for "| " <> row <- File.stream!(Path.join(@root, "docs/original.md")),
          [number | cells] = String.split(row, "|"),
          {number, " "} <- [Integer.parse(number)],
          do: {number, Enum.at(cells, 2)}

    assert Enum.map(rows, &elem(&1, 0)) == Enum.to_list(1..40)

    for {number, shown} <- rows do
      named = named(shown)
      assert named != [], "#{number} names no test"

      for {file, name} <- named do
        text = File.read!(Path.join(@root, file))
        there? = text =~ definition(file, name)
        assert there?, "#{number}: there is no test #{inspect(name)} in #{file}"
      end
    end
  end

  # `file` *name*, *name*; `file` *name*
  defp named(cell) do
    for [_, file, names] <-
          Regex.scan(~r/`([^`]+)` ((?:\*[^*]+\*(?: \([^)]*\))?(?:, )?)+)/, cell),
        [_, name] <- Regex.scan(~r/\*([^*]+)\*/, names),
        do: {file, name}
  end

  defp definition(file, name) do
    case Path.extname(file) do
      ".exs" -> ~s(test "#{name}")
      ".rs" -> "fn #{name}("
    end
  end
end
