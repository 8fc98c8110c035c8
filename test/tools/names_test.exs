Code.require_file("names.ex", __DIR__)

defmodule Tube.Tools.NamesTest do
  # A page names files, modules, functions, variables and headings. Each must exist.
  use ExUnit.Case, async: true

  alias Tube.Tools.Names
  alias Tube.Tools.Names.Source

  @root Path.expand("../..", __DIR__)
  # The changelog may name what is gone.
  @pages ~w(README.md CONTRIBUTING.md bench/README.md test/xen/README.md) ++
           (["docs", "guides"]
            |> Enum.flat_map(&Path.wildcard(Path.join([@root, &1, "**/*.md"])))
            |> Enum.map(&Path.relative_to(&1, @root)))

  setup_all do
    %{source: Source.new(@root)}
  end

  for page <- @pages do
    @tag page: page
    test "#{page} names nothing that does not exist", %{source: source, page: page} do
      problems = Names.problems(source, page, File.read!(Path.join(@root, page)))
      assert problems == [], Enum.join(problems, "\n")
    end
  end

  # What the check finds on a page of docs/ with this text, without the page's name.
  defp found(source, text) do
    for problem <- Names.problems(source, "docs/page.md", text) do
      ["docs/page.md", line, what] = String.split(problem, ":", parts: 3)
      {String.to_integer(line), String.trim(what)}
    end
  end

  test "a file that does not exist is found, with its line", %{source: source} do
    assert found(source, "A\n`lib/tube/nowhere.ex`") == [{2, "no file lib/tube/nowhere.ex"}]
    assert found(source, "see native/nowhere.") == [{1, "no file native/nowhere"}]
    assert found(source, "see notes/old.md") == [{1, "no file notes/old.md"}]
    assert found(source, "the table in `nowhere.rs`") == [{1, "no file nowhere.rs"}]
    assert found(source, "```\nbin/nowhere --fast\n```") == [{2, "no file bin/nowhere"}]
    assert found(source, "`native/*/nowhere`") == [{1, "no file native/*/nowhere"}]
    assert found(source, "[it](nowhere.md)") == [{1, "no file nowhere.md"}]
    assert found(source, "[it](../docs/wire)") == [{1, "no file ../docs/wire"}]

    assert found(source, "bin/{test,nowhere} and lib/{tube,not}/{here,stats}") ==
             for(
               path <- ~w(bin/nowhere lib/not/here lib/not/stats lib/tube/here),
               do: {1, "no file #{path}"}
             )
  end

  test "files that exist are not, however they are named", %{source: source} do
    for text <- [
          "`lib/tube.ex`, lib/tube/, native/ring: bin/test.",
          "[a](wire.md), [b](../README.md), [c](https://example.com/nowhere.md)",
          "`mix.exs`, `layout.rs`, `src/layout.rs`, `ring/src/layout.rs`",
          "native/*/src/lib.rs, bin/{test,bench}, lib/tube/...",
          "bin/my_app, /usr/lib/nowhere, $HOME/bin/nowhere, _build/dev/lib/nowhere",
          "/local/domain/5/data/test"
        ],
        do: assert(found(source, text) == [], text)
  end

  test "a module that does not exist is found", %{source: source} do
    assert found(source, "`Tube.Nowhere`") == [{1, "no module Tube.Nowhere"}]
    assert found(source, "Tube.Nowhere.open(5)") == [{1, "no module Tube.Nowhere"}]
    assert found(source, "`Mix.Tasks.Tube.Fly`") == [{1, "no module Mix.Tasks.Tube.Fly"}]
    assert found(source, "    mix tube.fly") == [{1, "no task mix tube.fly"}]
    assert found(source, "Tube, `Tube.Error`, Mix.Tasks.Tube.List, mix tube.list") == []
    # Those that only tests and benchmarks have count too.
    assert found(source, "Tube.Bench.Stats, Tube.Test.VM, Tube.BenchTest") == []
  end

  test "a function that does not exist is found", %{source: source} do
    assert found(source, "`Tube.fly/2`") == [{1, "no function Tube.fly/2"}]
    assert found(source, "`Tube.open/7`") == [{1, "no function Tube.open/7"}]
    assert found(source, "Tube.fly(tube)") == [{1, "no function Tube.fly"}]
    assert found(source, ":tube.fly(5)") == [{1, "no function :tube.fly"}]

    assert found(source, "tube:fly(5), `tube:close/9`") ==
             [{1, "no function :tube.close/9"}, {1, "no function :tube.fly"}]

    # Also with defaults, types and callbacks; messages are no modules.
    assert found(source, "Tube.open/1, `Tube.open/2`, Tube.send(t, d), t:Tube.Error.reason/0") ==
             []

    assert found(source, ":tube.close/1, tube:open(5), {:tube_closed, tube}") == []
  end

  test "a heading that does not exist is found", %{source: source} do
    text = "# A page\n## Of 2 things: `a` and b\n## Twice\n## Twice\n"
    assert found(source, text <> "[x](#a-page) [x](#of-2-things-a-and-b) [x](#twice-1)") == []
    assert found(source, text <> "[x](#elsewhere)") == [{5, "no heading #elsewhere"}]
    assert found(source, text <> "[x](#twice-2)") == [{5, "no heading #twice-2"}]
    assert found(source, "[x](../README.md#checks)") == []

    assert found(source, "[x](../README.md#elsewhere)") == [
             {1, "no heading ../README.md#elsewhere"}
           ]

    assert found(source, "```\n# no heading\n```\n[x](#no-heading)") == [
             {4, "no heading #no-heading"}
           ]
  end

  test "a Rust name or a variable that does not exist is found", %{source: source} do
    assert found(source, "`Producer::fly`") ==
             [{1, "nothing is called fly in native (Producer::fly)"}]

    assert found(source, "`Nowhere::put`") ==
             [{1, "nothing is called Nowhere in native (Nowhere::put)"}]

    assert found(source, "`Producer::publish`, `tube_ring::Producer`, std::mem::swap") == []
    assert found(source, "TUBE_NOWHERE=1") == [{1, "no variable TUBE_NOWHERE"}]
    assert found(source, "TUBE_DOMID=5 bin/demo, TUBE_RUN_DIR") == []
  end
end
