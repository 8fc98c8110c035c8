defmodule Tube.Native.DriverTest do
  use ExUnit.Case, async: true

  @elixir "lib/tube/native/driver.ex"
  @rust "native/tube/src/driver/operation.rs"

  test "both sides give the operations of a port the same numbers" do
    elixir = table(@elixir, ~r/^  @op_(\w+) 0x(\w+)$/m)
    rust = table(@rust, ~r/^const (\w+): u32 = 0x(\w+);$/m)
    assert elixir == rust
    assert map_size(rust) == 6
    # The high half distinguishes them from the operations of other drivers.
    assert Enum.all?(rust, fn {_name, code} -> div(code, 0x10000) == 0x5455 end)
  end

  defp table(file, pattern) do
    for [name, code] <- Regex.scan(pattern, File.read!(file), capture: :all_but_first),
        into: %{} do
      {String.downcase(name), code |> String.replace("_", "") |> String.to_integer(16)}
    end
  end
end
