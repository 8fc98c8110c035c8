defmodule Tube.NativeTest do
  use Tube.Test.NativeCase, async: false

  describe "a link" do
    test "carries messages of every size both ways", context do
      {tip, nock} = tube(context)
      parent = self()

      sizes =
        [0, 1, 8, 63, 64, 65, 1000, 32_759, 32_760, 32_761, 65_535, 65_536, 65_537] ++
          [300_000, 3 * 1024 * 1024]

      messages = for size <- sizes, do: :crypto.strong_rand_bytes(size)

      for {from, to} <- [{tip, nock}, {nock, tip}] do
        sender =
          spawn_link(fn -> send(parent, {:sent, Enum.map(messages, &send_all(from.id, &1))}) end)

        for message <- messages, do: assert(recv_all(to.id) == {:ok, message})
        assert_receive {:sent, results}, 5_000
        assert Enum.uniq(results) == [:ok]
        refute Process.alive?(sender) and Process.info(sender, :messages) != {:messages, []}
      end

      assert Native.recv(nock.id) == :wait
    end

    test "notifies a waiting owner once", context do
      {tip, nock} = tube(context)
      id = nock.id
      assert Native.recv(id) == :wait
      for _ <- 1..3, do: :ok = Native.send(tip.id, "hello")
      assert_receive {:"$tube_data", ^id}, 5_000
      for _ <- 1..3, do: assert(Native.recv(id) == {:ok, "hello"})
      assert Native.recv(id) == :wait
      assert Native.recv_cancel(id) == :ok
      :ok = Native.send(tip.id, "after cancel")
      refute_receive {:"$tube_data", ^id}, 50
      assert Native.recv(id) == {:ok, "after cancel"}
    end

    test "makes a sender wait when the ring is full, and notifies it of space", context do
      {tip, nock} = tube(context, order: 0)
      id = tip.id
      :ok = fill(id)
      refute_received {:"$tube_space", ^id}
      for _ <- 1..3, do: {:ok, _} = Native.recv(nock.id)
      assert_receive {:"$tube_space", ^id}, 5_000
      :ok = fill(id)
      assert Native.send_cancel(id) == :ok
      for _ <- 1..3, do: {:ok, _} = Native.recv(nock.id)
      refute_receive {:"$tube_space", ^id}, 50
    end

    test "does bounded work per call", context do
      {tip, nock} = tube(context, order: 8)
      message = :binary.copy("0123456789abcdef", 65_536)
      assert {:more, cont} = Native.send(tip.id, message)
      assert cont in 65_536..262_144

      result =
        Enum.reduce_while(1..10, {:more, cont}, fn
          _, {:more, cont} -> {:cont, Native.send(tip.id, message, cont)}
          _, other -> {:halt, other}
        end)

      assert match?({:wait, _}, result)
      assert Native.recv(nock.id) == :more
      assert Native.send_cancel(tip.id) == :ok
    end

    test "rejects a cont that is not the caller's", context do
      {tip, _nock} = tube(context, order: 0)
      message = :binary.copy("x", 10_000)
      assert Native.send(tip.id, message, 5) == {:error, :einval}
      assert {:wait, cont} = Native.send(tip.id, message)
      assert cont > 0
      other = helper()
      assert ask(other, fn -> Native.send(tip.id, message, cont) end) == {:error, :einval}
      assert ask(other, fn -> Native.send(tip.id, "mine") end) == {:wait, 0}
      assert Native.send(tip.id, "another") == {:error, :einval}
    end

    test "rejects a message longer than the peer takes", context do
      {tip, nock} = tube(context, max_message: 1000)
      assert Native.send(tip.id, :binary.copy("x", 1001)) == {:error, :emsgsize}
      :ok = Native.send(tip.id, :binary.copy("x", 1000))
      assert {:ok, <<_::binary-size(1000)>>} = Native.recv(nock.id)
    end

    test "copies messages, so that later ones do not change them", context do
      {tip, nock} = tube(context, order: 0)
      messages = for n <- 1..50, do: :binary.copy(<<n>>, 1500)

      received =
        for message <- messages do
          :ok = send_all(tip.id, message)
          {:ok, got} = recv_all(nock.id)
          got
        end

      assert received == messages
      assert Enum.all?(received, &(:binary.referenced_byte_size(&1) < 2000))
    end

    test "raises or returns an error for wrong arguments", context do
      {tip, _nock} = tube(context)
      assert_raise ArgumentError, fn -> Native.send(tip.id, [1, 2, 3]) end
      assert_raise ArgumentError, fn -> Native.send(tip.id, <<1::1>>) end
      assert_raise ArgumentError, fn -> Native.send(:id, "x") end
      assert_raise ArgumentError, fn -> Native.send(tip.id, "x", -1) end
      assert_raise ArgumentError, fn -> Native.recv(-1) end
      assert Native.Driver.active(tip.port, -3) == {:error, :einval}
      assert_raise ArgumentError, fn -> :erlang.port_control(tip.port, 99, "") end
    end
  end

  describe "a sender that dies before its message is complete" do
    test "does not block other senders, and its message is not delivered", context do
      {tip, nock} = tube(context, order: 0)
      sender = helper()
      assert {:wait, cont} = ask(sender, fn -> Native.send(tip.id, :binary.copy("x", 10_000)) end)
      assert cont > 0
      assert {:wait, 0} = Native.send(tip.id, "next")
      assert Native.recv(nock.id) == :wait
      kill(sender)
      id = tip.id
      assert_receive {:"$tube_space", ^id}, 5_000
      assert Native.send(tip.id, "next") == :ok
      assert recv_all(nock.id) == {:ok, "next"}
    end

    test "does not cancel the message of the next sender", context do
      {tip, nock} = tube(context, order: 0)
      first = helper()
      second = helper()
      message = :binary.copy("x", 10_000)
      assert {:wait, _} = ask(first, fn -> Native.send(tip.id, message) end)
      assert {:wait, 0} = ask(second, fn -> Native.send(tip.id, "second") end)
      assert ask(first, fn -> Native.send_cancel(tip.id) end) == :ok
      assert Native.recv(nock.id) == :wait
      assert {:wait, cont} = ask(second, fn -> Native.send(tip.id, message) end)
      assert cont > 0
      # The death of the first sender does not matter any more.
      kill(first)
      parent = self()
      spawn_link(fn -> send(parent, {:got, recv_all(nock.id)}) end)
      assert ask(second, fn -> Native.send(tip.id, message, cont) end) != {:error, :einval}
    end

    test "after its link was closed changes nothing", context do
      {tip, _nock} = tube(context, order: 0)
      sender = helper()
      assert {:wait, cont} = ask(sender, fn -> Native.send(tip.id, :binary.copy("x", 10_000)) end)
      Port.close(tip.port)
      assert ask(sender, fn -> Native.send(tip.id, "x", cont) end) == {:error, :closed}
      assert ask(sender, fn -> Native.send_cancel(tip.id) end) == :ok
      kill(sender)
    end
  end

  describe "an active owner" do
    test "gets messages with the handle of the tube", context do
      {tip, nock} = tube(context)
      tube = handle(nock)
      :ok = Native.send(tip.id, "before")
      assert Native.Driver.active(nock.port, -1) == :ok
      assert_receive {:tube, ^tube, "before"}, 5_000

      for size <- [0, 1, 64, 65, 30_000, 1_000_000] do
        message = :crypto.strong_rand_bytes(size)
        spawn_link(fn -> :ok = send_all(tip.id, message) end)
        assert_receive {:tube, ^tube, ^message}, 5_000
      end

      assert Native.recv(nock.id) == {:error, :einval}
    end

    test "in mode :port gets a port's messages", context do
      {tip, nock} = tube(context, mode: :port)
      me = self()
      :ok = Native.Driver.active(nock.port, -1)
      :ok = Native.send(tip.id, "hello")
      assert_receive {^me, {:data, "hello"}}, 5_000
      :ok = Native.shutdown(tip.id)
      id = nock.id
      assert_receive {:"$tube", ^id, :drained}, 5_000
      refute_received {:tube_closed, _}
    end

    test "can be another process than the connection", context do
      owner = helper()
      {tip, nock} = tube(context, nock: owner)
      tube = handle(nock)
      assert Native.recv(nock.id) == {:error, :not_owner}
      assert ask(owner, fn -> Native.recv(nock.id) end) == :wait
      assert ask(owner, fn -> Native.Driver.active(nock.port, -1) end) == :ok
      other = helper()
      assert ask(other, fn -> Native.Driver.active(nock.port, 0) end) == {:error, :not_owner}
      :ok = Native.send(tip.id, "hello")

      got = fn ->
        receive do
          {:tube, tube, data} -> {tube, data}
        after
          5_000 -> :nothing
        end
      end

      assert ask(owner, got) == {tube, "hello"}
      # The connection may make the link passive, to hand it over.
      assert Native.Driver.active(nock.port, 0) == :ok
      assert Native.link_owner(nock.id, self()) == :ok
      assert ask(owner, fn -> Native.recv(nock.id) end) == {:error, :not_owner}
      :ok = Native.send(tip.id, "mine")
      assert recv_all(nock.id) == {:ok, "mine"}
    end

    test "can ask for one message, or for a number of them", context do
      {tip, nock} = tube(context)
      tube = handle(nock)
      for n <- 1..6, do: :ok = Native.send(tip.id, "#{n}")
      :ok = Native.Driver.active(nock.port, -2)
      assert_receive {:tube, ^tube, "1"}, 5_000
      refute_receive {:tube, ^tube, _}, 20
      :ok = Native.Driver.active(nock.port, 2)
      assert_receive {:tube, ^tube, "2"}, 5_000
      assert_receive {:tube, ^tube, "3"}, 5_000
      assert_receive {:tube_passive, ^tube}, 5_000
      refute_receive {:tube, ^tube, _}, 20
      assert {:ok, %{active: 0}} = Native.info(nock.id)
      assert Native.recv(nock.id) == {:ok, "4"}
      :ok = Native.Driver.active(nock.port, 5)
      assert_receive {:tube, ^tube, "6"}, 5_000
      assert {:ok, %{active: 3}} = Native.info(nock.id)
      :ok = Native.Driver.active(nock.port, 0)
      :ok = Native.send(tip.id, "7")
      refute_receive {:tube, ^tube, "7"}, 50
    end

    test "that dies stops delivery, and the next owner gets the rest", context do
      owner = helper()
      {tip, nock} = tube(context, nock: owner)
      assert ask(owner, fn -> Native.Driver.active(nock.port, -1) end) == :ok
      kill(owner)
      for n <- 1..5, do: :ok = Native.send(tip.id, "#{n}")
      # The first message is lost: sending it showed that the owner was dead.
      Eventually.true!(fn -> match?({:ok, %{active: 0}}, Native.info(nock.id)) end)
      :ok = Native.link_owner(nock.id, self())
      assert recv_all(nock.id) == {:ok, "2"}
    end

    test "gets many messages in order", context do
      {tip, nock} = tube(context, order: 8)
      tube = handle(nock)
      :ok = Native.Driver.active(nock.port, -1)
      count = 20_000
      spawn_link(fn -> for n <- 1..count, do: :ok = send_all(tip.id, <<n::32, 0::480>>) end)

      for n <- 1..count do
        assert_receive {:tube, ^tube, <<^n::32, 0::480>>}, 5_000
      end
    end
  end
end
