defmodule Tube.RecvManyTest do
  # Many messages in one call. native/link/tests/many.rs tests the same for a link.
  use Tube.Test.NativeCase, async: false

  @sizes [0, 1, 64, 65, 100, 1000, 4096, 4097, 20_000, 65_536, 70_000, 3]

  test "returns the messages that have arrived, in order, byte for byte", context do
    {tip, nock} = tube(context, order: 8)
    messages = for size <- @sizes, do: :crypto.strong_rand_bytes(size)
    for message <- messages, do: :ok = send_all(tip.id, message)
    assert Native.recv_many(nock.id, 1024) == {:ok, messages}
    assert Native.recv_many(nock.id, 1024) == :wait
    id = nock.id
    :ok = Native.send(tip.id, "later")
    assert_receive {:"$tube_data", ^id}, 5_000
    assert Native.recv_many(nock.id, 1024) == {:ok, ["later"]}
  end

  test "has a limit on messages and on bytes", context do
    {tip, nock} = tube(context, order: 8)
    for n <- 1..3_000, do: :ok = Native.send(tip.id, <<n::32>>)
    assert {:ok, [<<1::32>>]} = Native.recv_many(nock.id, 1)
    assert {:ok, many} = Native.recv_many(nock.id, 1_000_000)
    assert many == for(n <- 2..1_025, do: <<n::32>>)
    drain(nock.id)
    for _ <- 1..15, do: :ok = Native.send(tip.id, :binary.copy("x", 60_000))
    assert {:ok, some} = Native.recv_many(nock.id, 1024)
    assert length(some) in 1..5
  end

  test "the memory that a small message keeps alive is limited", context do
    {tip, nock} = tube(context, order: 8)
    for _ <- 1..900, do: :ok = Native.send(tip.id, :binary.copy("x", 1_000))
    {:ok, many} = Native.recv_many(nock.id, 1024)
    assert Enum.all?(many, &(:binary.referenced_byte_size(&1) <= 32 * 1024))
    drain(nock.id)
    :ok = Native.send(tip.id, :binary.copy("x", 1_000))
    {:ok, [one]} = Native.recv_many(nock.id, 1024)
    assert :binary.referenced_byte_size(one) == 1_000
    # The same for a few of many.
    for _ <- 1..100, do: :ok = Native.send(tip.id, :binary.copy("x", 1_000))
    {:ok, _one} = Native.recv_many(nock.id, 1)
    {:ok, [two, _]} = Native.recv_many(nock.id, 2)
    assert :binary.referenced_byte_size(two) <= 2_000
  end

  test "returns the errors of recv", context do
    other = helper()
    {tip, nock} = tube(context, nock: other)
    :ok = Native.send(tip.id, "x")
    assert Native.recv_many(nock.id, 9) == {:error, :not_owner}
    assert ask(other, fn -> Native.recv_many(nock.id, 9) end) == {:ok, ["x"]}
    :ok = Native.shutdown(tip.id)
    assert ask(other, fn -> Native.recv_many(nock.id, 9) end) == {:error, :closed}
    assert Native.recv_many(1, 9) == {:error, :closed}
    assert_raise ArgumentError, fn -> Native.recv_many(nock.id, -1) end
    assert_raise ArgumentError, fn -> Native.recv_many(:id, 1) end
  end

  test "Tube.recv_many waits for the first message, up to its limit", context do
    {tip, nock} = tube(context)
    tube = %Tube{pid: self(), port: nock.port, id: nock.id}
    assert Tube.recv_many(tube, 10, 0) == {:error, :timeout}
    assert Tube.recv_many(tube, 10, 10) == {:error, :timeout}
    sender = spawn_link(fn -> receive(do: (:go -> send_all(tip.id, "hello"))) end)
    send(sender, :go)
    assert Tube.recv_many(tube) == {:ok, ["hello"]}
    for word <- ~w(a b c), do: :ok = Native.send(tip.id, word)
    assert Tube.recv_many(tube, 2) == {:ok, ["a", "b"]}
    assert Tube.recv_many(tube, Integer.pow(2, 80)) == {:ok, ["c"]}
    refute_received {:"$tube_data", _id}

    for max <- [0, -1, 1.0, :all],
        do: assert_raise(ArgumentError, fn -> Tube.recv_many(tube, max) end)

    assert_raise ArgumentError, ~r/is not a tube/, fn -> Tube.recv_many(:tube) end
    Native.shutdown(tip.id)
    assert Tube.recv_many(tube) == {:error, :closed}
  end

  defp drain(id) do
    case Native.recv_many(id, 1024) do
      {:ok, _messages} -> drain(id)
      :wait -> Native.recv_cancel(id)
    end
  end
end
