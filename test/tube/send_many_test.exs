defmodule Tube.SendManyTest do
  # Many messages in one call: all of them, or exactly the rest that was not sent.
  # native/link/tests/sending.rs tests the same for a link.
  use Tube.Test.NativeCase, async: false

  defp ends(context, options) do
    {tip, nock} = tube(context, options)
    for link <- [tip, nock], do: %Tube{pid: self(), port: link.port, id: link.id}
  end

  defp drain(tube) do
    case Tube.recv_many(tube, 1024, 0) do
      {:ok, messages} -> messages ++ drain(tube)
      {:error, :timeout} -> []
    end
  end

  test "binaries and iodata, none and thousands, in order", context do
    [tip, nock] = ends(context, order: 8)
    assert Tube.send_many(tip, []) == :ok
    assert drain(nock) == []
    assert Tube.send_many(tip, ["one", "", :binary.copy("x", 70_000)]) == :ok
    assert drain(nock) == ["one", "", :binary.copy("x", 70_000)]
    assert Tube.send_many(tip, ["flat", ["not", [?\s, "so"]], []]) == :ok
    assert drain(nock) == ["flat", "not so", ""]
    many = for n <- 1..5_000, do: <<n::32>>
    assert Tube.send_many(tip, many) == :ok
    assert drain(nock) == many
  end

  test "a native call has a limit on messages and on bytes", context do
    [tip, _nock] = ends(context, order: 8)
    many = for n <- 1..3_000, do: <<n::32>>
    assert {:more, rest, 0} = Native.send_many(tip.id, many)
    assert rest == Enum.drop(many, 1024)
    large = List.duplicate(:binary.copy("x", 60_000), 15)
    assert {:more, rest, 0} = Native.send_many(tip.id, large)
    assert length(rest) == 10
    # Arguments that the library never passes.
    for bad <- [:none, [:atom], ["ok" | "tail"]],
        do: assert_raise(ArgumentError, fn -> Native.send_many(tip.id, bad) end)
  end

  test "waits for room, message by message, long ones too", context do
    [tip, nock] = ends(context, order: 0)
    sizes = [10, 3_000, 0, 2_000, 50_000, 1, 4_000, 9_000, 7]
    messages = for _ <- 1..20, size <- sizes, do: :crypto.strong_rand_bytes(size)
    sender = Task.async(fn -> Tube.send_many(tip, messages) end)
    received = for _ <- messages, do: elem(Tube.recv(nock, 5_000), 1)
    assert received == messages
    assert Task.await(sender) == :ok
  end

  test "returns the messages that were not sent, after a timeout or without room", context do
    [tip, nock] = ends(context, order: 0)
    messages = for n <- 1..20, do: <<n, 0::size(4_000)>>
    assert {:error, {:busy, rest}} = Tube.send_many(tip, messages, nosuspend: true)
    assert length(rest) in 1..19
    assert drain(nock) == messages -- rest
    assert {:error, {:timeout, rest}} = Tube.send_many(tip, messages, timeout: 20)
    assert drain(nock) == messages -- rest
    assert {:error, {:timeout, ^rest}} = full(tip, rest)
    assert drain(nock) == [:binary.copy("f", 4000)]
    refute_received {:"$tube_space", _id}

    # A message in progress at the timeout was not sent either.
    long = :binary.copy("long", 5_000)

    assert {:error, {:timeout, [^long, "after"]}} =
             Tube.send_many(tip, ["before", long, "after"], 20)

    assert drain(nock) == ["before"]
    assert Tube.send_many(tip, ["again"]) == :ok
    assert drain(nock) == ["again"]
  end

  test "a refused message ends the call at its place", context do
    [tip, nock] = ends(context, max_message: 1_000)
    long = :binary.copy("x", 1_001)
    assert Tube.send_many(tip, ["one", long, "two"]) == {:error, {:emsgsize, [long, "two"]}}
    assert drain(nock) == ["one"]

    assert_raise ArgumentError, fn -> Tube.send_many(tip, ["one", :two]) end
    assert_raise ArgumentError, fn -> Tube.send_many(tip, ["one" | "two"]) end
    assert_raise ArgumentError, ~r/list of iodata/, fn -> Tube.send_many(tip, "one") end
    assert_raise ArgumentError, ~r/is not a tube/, fn -> Tube.send_many(:tube, []) end
    assert_raise ArgumentError, ~r/:wait/, fn -> Tube.send_many(tip, [], wait: 1) end
    assert drain(nock) == []

    Native.shutdown(tip.id)
    assert Tube.send_many(tip, ["one"]) == {:error, {:closed, ["one"]}}
    Port.close(tip.port)
    assert Tube.send_many(tip, ["one"]) == {:error, {:closed, ["one"]}}
  end

  test "a long list costs reductions", context do
    [tip, nock] = ends(context, order: 8)
    many = List.duplicate("x", 1024)
    {:reductions, before} = Process.info(self(), :reductions)
    :ok = Native.send_many(tip.id, many)
    {:reductions, later} = Process.info(self(), :reductions)
    # A time slice is 4000 reductions, and 1024 messages cost eight hundredths of it.
    assert later - before >= 200
    assert drain(nock) == many
  end

  # Fills the ring first.
  defp full(tip, messages) do
    :ok = Tube.send(tip, :binary.copy("f", 4000), 0)
    Tube.send_many(tip, messages, 20)
  end
end
