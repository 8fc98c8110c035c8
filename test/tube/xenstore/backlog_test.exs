defmodule Tube.Xenstore.BacklogTest do
  use ExUnit.Case, async: true

  import Tube.Test.Properties
  import :proper_types, only: [integer: 2, list: 1, vector: 2, frequency: 1]

  alias Tube.Xenstore.Backlog
  alias Tube.Xenstore.Wire.Path

  # How many paths of one domain may wait before they become one.
  @limit 64

  test "the same path waits once" do
    backlog =
      Enum.reduce(1..1_000, Backlog.new(), fn _, backlog ->
        Backlog.push(backlog, "/local/domain/5/a")
      end)

    assert {"/local/domain/5/a", rest} = Backlog.pop(backlog)
    assert Backlog.pop(rest) == :empty
  end

  test "nothing is lost: each pushed path is delivered, or one above it" do
    # Few domains and many names, so that some overflow.
    path =
      map({integer(0, 3), integer(1, 500)}, fn {domid, n} ->
        "/local/domain/#{domid}/data/#{n}"
      end)

    paths = frequency([{3, vector(400, path)}, {1, list(path)}])

    check(
      paths,
      fn paths ->
        delivered = paths |> Enum.reduce(Backlog.new(), &Backlog.push(&2, &1)) |> drain()
        for path <- paths, do: assert(Enum.any?(Path.lineage(path), &(&1 in delivered)))
        for path <- delivered, do: assert(Enum.any?(paths, &(path in Path.lineage(&1))))
      end,
      runs: 30
    )
  end

  test "a storm of one domain is bounded and becomes its directory" do
    backlog = storm(Backlog.new(), 7, 10_000)
    assert drain(backlog) == ["/local/domain/7"]
    assert Backlog.new() |> storm(7, @limit) |> drain() |> length() == @limit
  end

  test "a storm of one domain delays another's event by one turn" do
    backlog = Backlog.new() |> storm(7, @limit) |> Backlog.push("/local/domain/5/data/nock/1/0")

    {_first_of_7, backlog} = Backlog.pop(backlog)
    assert {"/local/domain/5/data/nock/1/0", _rest} = Backlog.pop(backlog)
  end

  test "a storm of domain 7 does not affect domain 70" do
    backlog = Backlog.new() |> storm(7, 1_000) |> Backlog.push("/local/domain/70/a")
    assert Enum.sort(drain(backlog)) == ["/local/domain/7", "/local/domain/70/a"]
  end

  test "special paths and the top of the tree are kept" do
    paths = ["@releaseDomain", "/", "/local", "/local/domain", "/vm/x"]
    backlog = Enum.reduce(paths, Backlog.new(), &Backlog.push(&2, &1))
    assert Enum.sort(drain(backlog)) == Enum.sort(paths)
  end

  defp storm(backlog, domid, count),
    do: Enum.reduce(1..count, backlog, &Backlog.push(&2, "/local/domain/#{domid}/data/#{&1}"))

  defp drain(backlog) do
    case Backlog.pop(backlog) do
      {path, rest} -> [path | drain(rest)]
      :empty -> []
    end
  end
end
