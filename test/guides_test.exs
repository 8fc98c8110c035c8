defmodule Tube.GuidesTest do
  # Runs the code blocks of each guide and of README.
  use ExUnit.Case, async: true
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.Guide

  setup :fresh_run_dir

  @root Path.expand("..", __DIR__)
  # test/dist/guide_test.exs runs the blocks of the first; those of the second need Xen.
  @elsewhere ["guides/distribution.md", "guides/xen.md"]
  @guides Path.wildcard(@root <> "/guides/*.md") |> Enum.map(&Path.relative_to(&1, @root))

  for guide <- ["README.md" | @guides -- @elsewhere] do
    @tag guide: guide
    test guide, %{guide: guide, run_dir: run_dir} do
      blocks = @root |> Path.join(guide) |> File.read!() |> Guide.blocks()
      assert Enum.any?(blocks, &(&1.language in ["elixir", "erlang"])), "no block was found"
      assert :ok = Guide.run!(blocks, guide, run_dir)
    end
  end

  test "the files that they name exist" do
    for guide <- ["README.md" | @guides],
        text = File.read!(Path.join(@root, guide)),
        [_all, path] <-
          Regex.scan(
            ~r"(?<![\w./$<>-])((?:bin|examples|guides|docs|native|bench|test)/[\w./-]*[\w/])",
            text
          ) do
      # A file of the reader.
      unless path == "bin/my_app",
        do: assert(File.exists?(Path.join(@root, path)), "#{guide} names #{path}")
    end
  end
end
