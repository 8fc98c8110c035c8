defmodule Tube.PathsTest do
  use ExUnit.Case, async: true
  doctest Tube.Paths

  alias Tube.Paths

  @legal ~r{\A[A-Za-z0-9/_@-]+\z}

  test "the paths of the founding document" do
    assert Paths.knock(7, 5, 0) == "/local/domain/7/data/nock/5/0"
    assert Paths.entry(5, 7, 0) == "/local/domain/5/data/tip/7/0"
    assert Paths.door(5) == "/local/domain/5/data/tube"
  end

  test "each path is parsed as what it was built for" do
    assert Paths.parse(Paths.door(5)) == {:door, 5, nil}
    assert Paths.parse(Paths.service(5, "chat")) == {:door, 5, "chat"}
    assert Paths.parse(Paths.knocks(7, 5)) == {:knocks, 7, 5}
    assert Paths.parse(Paths.knock(7, 5, 3)) == {:knock, 7, 5, 3, nil}
    assert Paths.parse(Paths.knock(7, 5, 3) <> "/state") == {:knock, 7, 5, 3, "state"}
    assert Paths.parse(Paths.inbox(5, 7)) == {:inbox, 5, 7}

    assert Paths.parse(Paths.entry(5, 7, 0xFFFFFFFF) <> "/a/b") ==
             {:entry, 5, 7, 0xFFFFFFFF, "a/b"}

    assert Paths.parse("/local/domain/0x7fef") == :other
    assert Paths.parse("/local/domain/32751") == {:domain, 32_751}
  end

  test "what is not exactly ours is nobody's" do
    for path <- [
          "/local/domain",
          "/local/domain/",
          "/local/domain/07/data/nock/5/0",
          "/local/domain/7/data/nock/05/0",
          "/local/domain/7/data/nock/5/00",
          "/local/domain/7/data/nock/5/+1",
          "/local/domain/7/data/nock/5/-1",
          "/local/domain/7/data/nock/5/4294967296",
          "/local/domain/32752/data/nock/5/0",
          "/local/domain/7/data/nick/5/0",
          "/local/domain/7/data",
          "/local/domain/7/device/vif/0",
          "/vm/7",
          "@releaseDomain",
          ""
        ],
        do: assert(Paths.parse(path) == :other, path)
  end

  test "no domid or number out of range makes a path" do
    assert_raise FunctionClauseError, fn -> Paths.door(0x7FF0) end
    assert_raise FunctionClauseError, fn -> Paths.knock(7, 5, -1) end
    assert_raise FunctionClauseError, fn -> Paths.entry(5, 0x7FF0, 0) end
  end

  describe "service names" do
    test "are legal nodes, each its own, and come back as they were" do
      names =
        for(byte <- 0..255, do: <<byte>>) ++
          for(byte <- 0..255, do: <<?a, byte>>) ++
          [
            "version",
            "watch",
            "stats",
            "_version",
            "_76ersion",
            "Version",
            "grüße",
            "a/b",
            "@x",
            "-",
            "__",
            String.duplicate("é", 32)
          ]

      nodes = Enum.map(names, &Paths.escape/1)
      assert Enum.all?(nodes, &(&1 =~ @legal and not String.contains?(&1, "/")))
      assert length(Enum.uniq(nodes)) == length(Enum.uniq(names))
      for {name, node} <- Enum.zip(names, nodes), do: assert(Paths.unescape(node) == {:ok, name})
    end

    test "never stand where the door keeps its own nodes" do
      for name <- ~w(version watch stats), do: refute(Paths.escape(name) == name)
    end

    test "are only read in the one way in which they are written" do
      for node <- [
            "",
            "version",
            "_",
            "_4",
            "_zz",
            "_41",
            "_2E",
            "a b",
            "a.b",
            String.duplicate("a", 65)
          ],
          do: assert(Paths.unescape(node) == :error, node)
    end

    test "have 1 to 64 bytes" do
      assert_raise FunctionClauseError, fn -> Paths.escape("") end
      assert_raise FunctionClauseError, fn -> Paths.escape(String.duplicate("a", 65)) end
    end
  end
end
