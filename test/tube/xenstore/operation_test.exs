defmodule Tube.Xenstore.OperationTest do
  use ExUnit.Case, async: true

  import Tube.Test.Properties
  import :proper_types, only: [integer: 2, list: 1]

  alias Tube.Xenstore.Operation

  test "most operations are one request" do
    assert {:send, {:read, "/a"}, 7, operation} = Operation.start({:read, "/a"}, 7)
    assert Operation.reply(operation, {:ok, "v"}) == {:done, {:ok, "v"}}
    assert Operation.reply(operation, {:error, :enoent}) == {:done, {:error, :enoent}}
  end

  test "malformed operations are refused before anything is sent" do
    for op <- [
          nil,
          :transaction_start,
          {:transaction_end, true},
          {},
          {:read, "no//path"},
          {:watch, "/a", "t"},
          {:transaction, :nothing},
          {:transaction, [{:read, "/a"}, {:read, ""}]},
          {:transaction, [{:transaction, []}]},
          {:transaction, [:transaction_start]},
          {:transaction, [{:transaction_end, true}]}
        ] do
      assert Operation.start(op, 0) == {:done, {:error, :einval}}, inspect(op)
    end

    assert Operation.start({:transaction, []}, 5) == {:done, {:error, :einval}}
  end

  describe "a directory" do
    test "that is too large for one reply comes in parts" do
      # Names of every length, in replies of every size.
      check({list(integer(1, 20)), integer(1, 60)}, fn {lengths, size} ->
        names =
          for {length, n} <- Enum.with_index(lengths), do: String.duplicate("n", length) <> "#{n}"

        whole = for(name <- names, into: "", do: name <> "\0") <> "\0"

        {:send, request, 0, operation} = Operation.start({:directory, "/a"}, 0)
        assert request == {:directory, "/a"}
        step = Operation.reply(operation, {:error, :e2big})
        assert serve_parts(step, whole, size) == {:done, {:ok, names}}
      end)
    end

    test "that changes meanwhile is read again, but not for ever" do
      {:send, _, 0, operation} = Operation.start({:directory, "/a"}, 0)

      {:send, {:directory_part, "/a", 0}, 0, operation} =
        Operation.reply(operation, {:error, :e2big})

      {:send, {:directory_part, "/a", 2}, 0, operation} =
        Operation.reply(operation, {:ok, "1\0x\0"})

      assert {:send, {:directory_part, "/a", 0}, 0, operation} =
               Operation.reply(operation, {:ok, "2\0y\0"})

      assert {:done, {:ok, ["z"]}} = Operation.reply(operation, {:ok, "2\0z\0\0"})

      assert changing(operation, 3, 100) == {:done, {:error, :eagain}}
    end

    test "without an end is given up" do
      {:send, _, 0, operation} = Operation.start({:directory, "/a"}, 0)
      {:send, _, 0, operation} = Operation.reply(operation, {:error, :e2big})
      part = "1\0" <> String.duplicate("x", 4000) <> "\0"
      assert endless(operation, part, 1_000) == {:done, {:error, :e2big}}
    end

    test "whose parts are empty is a protocol error" do
      {:send, _, 0, operation} = Operation.start({:directory, "/a"}, 0)
      {:send, _, 0, operation} = Operation.reply(operation, {:error, :e2big})
      assert Operation.reply(operation, {:ok, "1\0"}) == {:done, {:error, :protocol}}
    end

    test "cannot be read in parts from every store" do
      {:send, _, 0, operation} = Operation.start({:directory, "/a"}, 0)
      {:send, _, 0, operation} = Operation.reply(operation, {:error, :e2big})
      assert Operation.reply(operation, {:error, :enosys}) == {:done, {:error, :enosys}}
    end
  end

  describe "a transaction" do
    @ops [{:write, "/a", "1"}, {:read, "/b"}]

    test "is START, its operations, END" do
      assert {:send, :transaction_start, 0, operation} = Operation.start({:transaction, @ops}, 0)
      assert Operation.left_open(operation) == nil
      assert {:send, {:write, "/a", "1"}, 9, operation} = Operation.reply(operation, {:ok, "9\0"})
      assert Operation.left_open(operation) == 9
      assert {:send, {:read, "/b"}, 9, operation} = Operation.reply(operation, {:ok, "OK\0"})

      assert {:send, {:transaction_end, true}, 9, operation} =
               Operation.reply(operation, {:ok, "v"})

      assert Operation.left_open(operation) == nil
      assert Operation.reply(operation, {:ok, "OK\0"}) == {:done, {:ok, [:ok, {:ok, "v"}]}}
    end

    test "of no operations is still a transaction" do
      {:send, :transaction_start, 0, operation} = Operation.start({:transaction, []}, 0)
      {:send, {:transaction_end, true}, 1, operation} = Operation.reply(operation, {:ok, "1\0"})
      assert Operation.reply(operation, {:ok, "OK\0"}) == {:done, {:ok, []}}
    end

    test "is aborted at the first error, which is its result" do
      operation = running({:transaction, @ops}, 20)

      assert {:send, {:transaction_end, false}, 9, operation} =
               Operation.reply(operation, {:error, :eacces})

      assert Operation.reply(operation, {:ok, "OK\0"}) == {:done, {:error, :eacces}}
      # Whatever the reply to the END: it was an abort.
      assert Operation.reply(operation, {:error, :enoent}) == {:done, {:error, :eacces}}
    end

    test "that cannot be started returns the store's reason" do
      {:send, _, 0, operation} = Operation.start({:transaction, @ops}, 0)
      assert Operation.reply(operation, {:error, :enospc}) == {:done, {:error, :enospc}}
    end

    test "is retried after EAGAIN, a limited number of times" do
      for tries <- 1..4,
          do: assert(tries_until_eagain(running({:transaction, []}, tries)) == tries)
    end

    test "is retried when one of its operations fails with EAGAIN" do
      operation = running({:transaction, @ops}, 2)

      {:send, {:transaction_end, false}, 9, operation} =
        Operation.reply(operation, {:error, :eagain})

      assert {:sleep, _pause, operation} = Operation.reply(operation, {:ok, "OK\0"})
      assert {:send, :transaction_start, 0, _operation} = Operation.wake(operation)
    end

    test "can hold a directory in parts" do
      operation = running({:transaction, [{:directory, "/a"}]}, 1)

      {:send, {:directory_part, "/a", 0}, 9, operation} =
        Operation.reply(operation, {:error, :e2big})

      {:send, {:transaction_end, true}, 9, operation} =
        Operation.reply(operation, {:ok, "1\0x\0\0"})

      assert Operation.reply(operation, {:ok, "OK\0"}) == {:done, {:ok, [{:ok, ["x"]}]}}
    end
  end

  test "pauses grow, differ and have a limit" do
    for nth <- [1, 2, 5, 20], pause <- for(_ <- 1..100, do: Operation.pause(nth)) do
      assert pause in 1..min(Integer.pow(2, nth), 64)
    end

    assert 1..50 |> Enum.map(fn _ -> Operation.pause(10) end) |> Enum.uniq() |> length() > 5
  end

  defp serve_parts({:send, {:directory_part, "/a", offset}, 0, operation}, whole, size) do
    # Whole names only, as many as fit, but at least one; the closing NUL goes with the last one.
    rest = binary_part(whole, offset, byte_size(whole) - offset)

    ends = for {at, 1} <- :binary.matches(rest, "\0"), do: at + 1
    fitting = ends |> Enum.take_while(&(&1 <= size)) |> List.last(hd(ends))
    length = if fitting == byte_size(rest) - 1, do: byte_size(rest), else: fitting

    operation
    |> Operation.reply({:ok, "77\0" <> binary_part(rest, 0, length)})
    |> serve_parts(whole, size)
  end

  defp serve_parts(done, _whole, _size), do: done

  defp changing(operation, generation, limit) when limit > 0 do
    case Operation.reply(operation, {:ok, "#{generation}\0x\0"}) do
      {:send, _request, 0, operation} -> changing(operation, generation + 1, limit - 1)
      done -> done
    end
  end

  defp endless(operation, part, limit) when limit > 0 do
    case Operation.reply(operation, {:ok, part}) do
      {:send, _request, 0, operation} -> endless(operation, part, limit - 1)
      done -> done
    end
  end

  defp running(op, tries) do
    {:send, :transaction_start, 0, operation} = Operation.start(op, 0, tries)
    {:send, _first, 9, operation} = Operation.reply(operation, {:ok, "9\0"})
    operation
  end

  # Its END is under way.
  defp tries_until_eagain(operation, tries \\ 1) do
    case Operation.reply(operation, {:error, :eagain}) do
      {:done, {:error, :eagain}} ->
        tries

      {:sleep, pause, operation} ->
        assert pause in 1..64
        {:send, :transaction_start, 0, operation} = Operation.wake(operation)
        {:send, {:transaction_end, true}, 9, operation} = Operation.reply(operation, {:ok, "9\0"})
        tries_until_eagain(operation, tries + 1)
    end
  end
end
