defmodule Tube.Tools.LongTest do
  # The long set: bin/test --long selects Rust tests by name, and ExUnit tests by tag.
  use ExUnit.Case, async: true

  @root Path.expand("../..", __DIR__)

  test "an ignored Rust test is named long_ exactly if it is ignored because it is long" do
    ignored =
      for file <- Path.wildcard(Path.join(@root, "native/*/{src,tests}/**/*.rs")),
          [_, reason, name] <-
            Regex.scan(~r/#\[ignore = "([^"]*)"\]\n\s*fn (\w+)/, File.read!(file)),
          do: {String.starts_with?(reason, "long: "), String.starts_with?(name, "long_"), name}

    assert Enum.any?(ignored, &elem(&1, 0))
    for {long, named, name} <- ignored, do: assert(long == named, name)
  end

  test "mix test leaves out what is tagged :long" do
    assert :long in ExUnit.configuration()[:exclude]
  end
end
