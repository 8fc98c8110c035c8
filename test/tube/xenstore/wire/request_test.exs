defmodule Tube.Xenstore.Wire.RequestTest do
  use ExUnit.Case, async: true

  import Tube.Test.Properties
  import :proper_types, only: [binary: 0, integer: 2, non_empty: 1, list: 1, oneof: 1]

  alias Tube.Xenstore.Wire.{Path, Perms, Reason, Request}

  describe "requests" do
    test "are encoded as in docs/misc/xenstore.txt" do
      for {request, type, payload} <- [
            {{:read, "/a/b"}, :read, "/a/b\0"},
            {{:write, "/a", "v\0w"}, :write, "/a\0v\0w"},
            {{:write, "/a", ["v", [?w]]}, :write, "/a\0vw"},
            {{:mkdir, "/a"}, :mkdir, "/a\0"},
            {{:rm, "/a"}, :rm, "/a\0"},
            {{:directory, "/"}, :directory, "/\0"},
            {{:directory_part, "/a", 10}, :directory_part, "/a\0" <> "10\0"},
            {{:get_perms, "/a"}, :get_perms, "/a\0"},
            {{:set_perms, "/a", [n: 5, r: 7]}, :set_perms, "/a\0n5\0r7\0"},
            {{:watch, "/a", "t"}, :watch, "/a\0t\0"},
            {{:unwatch, "/a", "t"}, :unwatch, "/a\0t\0"},
            {:transaction_start, :transaction_start, "\0"},
            {{:transaction_end, true}, :transaction_end, "T\0"},
            {{:transaction_end, false}, :transaction_end, "F\0"}
          ] do
        assert {:ok, ^type, iodata} = Request.encode(request)
        assert IO.iodata_to_binary(iodata) == payload
      end
    end

    test "that are malformed are refused" do
      for request <- [
            {:read, ""},
            {:read, "/a\0b"},
            {:read, "/a//b"},
            {:read, "/a/"},
            {:read, "/a b"},
            {:read, "/" <> String.duplicate("x", 3072)},
            {:read, String.duplicate("x", 2049)},
            {:read, :a},
            {:read, nil},
            {:write, "/a", :v},
            {:write, "/a", [:v]},
            {:write, "/a", [256]},
            {:set_perms, "/a", []},
            {:set_perms, "/a", [x: 1]},
            {:set_perms, "/a", [n: -1]},
            {:set_perms, "/a", [n: 0x10000]},
            {:set_perms, "/a", [:n]},
            {:destroy, "/a"},
            :read,
            nil
          ] do
        assert Request.encode(request) == {:error, :einval}, inspect(request)
      end
    end
  end

  describe "replies" do
    test "are decoded according to their request" do
      for {request, payload, result} <- [
            {{:read, "/a"}, "v\0w", {:ok, "v\0w"}},
            {{:read, "/a"}, "", {:ok, ""}},
            {{:directory, "/a"}, "", {:ok, []}},
            {{:directory, "/a"}, "x\0yy\0", {:ok, ["x", "yy"]}},
            {{:directory, "/a"}, "x\0yy", {:error, :protocol}},
            {{:directory_part, "/a", 0}, "12\0x\0\0", {:ok, {"12", "x\0\0"}}},
            {{:directory_part, "/a", 0}, "12", {:error, :protocol}},
            {{:get_perms, "/a"}, "n5\0r7\0", {:ok, [n: 5, r: 7]}},
            {{:get_perms, "/a"}, "", {:error, :protocol}},
            {{:get_perms, "/a"}, "q5\0", {:error, :protocol}},
            {{:get_perms, "/a"}, "n5x\0", {:error, :protocol}},
            {:transaction_start, "17\0", {:ok, 17}},
            {:transaction_start, "0\0", {:error, :protocol}},
            {:transaction_start, "x\0", {:error, :protocol}},
            {{:write, "/a", ""}, "OK\0", :ok}
          ] do
        assert Request.decode(request, payload) == result
      end
    end

    test "that are garbage never raise" do
      requests =
        oneof([
          {:read, "/a"},
          {:directory, "/a"},
          {:directory_part, "/a", 0},
          {:get_perms, "/a"},
          :transaction_start,
          {:transaction_end, true}
        ])

      check({requests, binary()}, fn {request, payload} ->
        result = Request.decode(request, payload)
        assert result == :ok or elem(result, 0) in [:ok, :error]
      end)
    end
  end

  test "permissions survive the wire" do
    check(non_empty(list({oneof([:n, :r, :w, :b]), integer(0, 0xFFFF)})), fn perms ->
      {:ok, payload} = Perms.format(perms)
      assert payload |> IO.iodata_to_binary() |> Perms.parse() == {:ok, perms}
    end)
  end

  describe "reasons" do
    test "that are known become atoms" do
      names = ~w(EINVAL EACCES EEXIST EISDIR ENOENT ENOMEM ENOSPC EIO ENOTEMPTY ENOSYS EROFS EBUSY
                 EAGAIN EISCONN E2BIG EPERM)

      for name <- names do
        assert name |> Kernel.<>("\0") |> Reason.parse() |> Atom.to_string() ==
                 String.downcase(name)
      end
    end

    test "that are unknown stay text" do
      assert Reason.parse("ESOMETHING_NEW\0") == {:xenstore, "ESOMETHING_NEW"}
      assert Reason.parse(<<255, 0>>) == {:xenstore, <<255>>}
      assert Reason.parse("") == {:xenstore, ""}
    end

    test "never become new atoms" do
      name = "ENEW#{System.unique_integer([:positive])}"
      assert Reason.parse(name <> "\0") == {:xenstore, name}
      assert_raise ArgumentError, fn -> String.to_existing_atom(String.downcase(name)) end
    end
  end

  describe "paths" do
    test "are related when one is above the other" do
      assert Path.related?("/a", "/a")
      assert Path.related?("/a", "/a/b/c")
      assert Path.related?("/a/b/c", "/a")
      assert Path.related?("/", "/a")
      refute Path.related?("/a", "/ab")
      refute Path.related?("/a/b", "/a/c")
      refute Path.related?("@releaseDomain", "/")
    end

    test "have a lineage" do
      assert Path.lineage("/") == ["/"]
      assert Path.lineage("/a") == ["/a", "/"]
      assert Path.lineage("/a/b/c") == ["/a/b/c", "/a/b", "/a", "/"]
      assert Path.lineage("@releaseDomain") == ["@releaseDomain"]
    end

    test "can be watched if they are absolute or special" do
      assert Path.watchable?("/a")
      assert Path.watchable?("@releaseDomain")
      refute Path.watchable?("data")
      refute Path.watchable?("/a/")
      refute Path.watchable?(:a)
    end
  end
end
