defmodule Tube.PathsTest do
  use ExUnit.Case, async: true
  doctest Tube.Paths

  alias Tube.Paths

  @legal ~r{\A[A-Za-z0-9/_@-]+\z}

  test "the paths of the founding document" do
    assert Paths.nock_node(7, 5, 0) == "/local/domain/7/data/nock/5/0"
    assert Paths.tip_node(5, 7, 0) == "/local/domain/5/data/tip/7/0"
    assert Paths.service_directory(5) == "/local/domain/5/data/tube"
  end

  test "each built path parses to its parts" do
    assert Paths.parse(Paths.service_directory(5)) == {:service_directory, 5, nil}
    assert Paths.parse(Paths.service(5, "chat")) == {:service_directory, 5, "chat"}
    assert Paths.parse(Paths.outbox(7, 5)) == {:outbox, 7, 5}
    assert Paths.parse(Paths.nock_node(7, 5, 3)) == {:nock_node, 7, 5, 3, nil}
    assert Paths.parse(Paths.nock_node(7, 5, 3) <> "/state") == {:nock_node, 7, 5, 3, "state"}
    assert Paths.parse(Paths.inbox(5, 7)) == {:inbox, 5, 7}

    assert Paths.parse(Paths.tip_node(5, 7, 0xFFFFFFFF) <> "/a/b") ==
             {:tip_node, 5, 7, 0xFFFFFFFF, "a/b"}

    assert Paths.parse("/local/domain/0x7fef") == :other
    assert Paths.parse("/local/domain/32751") == {:domain, 32_751}
  end

  test "a path that is not built here is not parsed" do
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

  test "a domid or number out of range raises" do
    assert_raise FunctionClauseError, fn -> Paths.service_directory(0x7FF0) end
    assert_raise FunctionClauseError, fn -> Paths.nock_node(7, 5, -1) end
    assert_raise FunctionClauseError, fn -> Paths.tip_node(5, 0x7FF0, 0) end
  end

  describe "service names" do
    test "become legal, distinct node names that decode to the same service" do
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

    test "never collide with the service directory's own nodes" do
      for name <- ~w(version watch stats), do: refute(Paths.escape(name) == name)
    end

    test "decode only from the form that escape gives" do
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
