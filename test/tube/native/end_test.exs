defmodule Tube.Native.EndTest do
  use Tube.Test.NativeCase, async: false

  describe "a link ends" do
    test "by shutdown: remaining data comes first, and events come in order", context do
      {tip, nock} = tube(context)
      {id, tube} = {nock.id, handle(nock)}
      :ok = Native.send(tip.id, "last")
      assert Native.shutdown(tip.id) == :ok
      assert Native.shutdown(tip.id) == :ok
      assert Native.send(tip.id, "more") == {:error, :closed}
      assert_receive {:"$tube", ^id, :fin}, 5_000
      refute_receive {:"$tube", ^id, :drained}, 20
      assert Native.recv(id) == {:ok, "last"}
      assert_receive {:"$tube", ^id, :drained}, 5_000
      refute_receive {:"$tube", ^id, :owner_told}, 20
      assert Native.recv(id) == {:error, :closed}
      assert_receive {:"$tube", ^id, :owner_told}, 5_000
      # An owner that becomes active later gets the message, too.
      :ok = Native.Driver.active(nock.port, -1)
      assert_receive {:tube_closed, ^tube}, 5_000
      # The other direction is still open.
      :ok = Native.send(id, "reply")
      assert recv_all(tip.id) == {:ok, "reply"}
    end

    test "when the peer closes it", context do
      {tip, nock} = tube(context)
      {id, tube} = {nock.id, handle(nock)}
      :ok = Native.Driver.active(nock.port, -1)
      :ok = Native.send(tip.id, "last")
      Port.close(tip.port)
      assert_receive {:tube, ^tube, "last"}, 5_000
      assert_receive {:tube_closed, ^tube}, 5_000
      assert_receive {:"$tube", ^id, :fin}, 5_000
      assert_receive {:"$tube", ^id, :gone}, 5_000
      assert_receive {:"$tube", ^id, :drained}, 5_000
      assert_receive {:"$tube", ^id, :owner_told}, 5_000
      refute_received {:tube_error, _, _}
      assert Native.send(id, "hello?") == {:error, :closed}
      refute_receive {:"$tube", ^id, _}, 20
    end

    test "when we close it: waiting processes are notified, and its id is invalid", context do
      {tip, nock} = tube(context, order: 0)
      id = tip.id
      :ok = fill(id)
      assert Native.recv(id) == :wait
      Port.close(tip.port)
      assert_receive {:"$tube_space", ^id}, 5_000
      assert_receive {:"$tube_data", ^id}, 5_000
      assert Native.send(id, "x") == {:error, :closed}
      assert Native.send(id, "x", 3) == {:error, :closed}
      assert Native.recv(id) == {:error, :closed}
      assert Native.shutdown(id) == {:error, :closed}
      assert Native.info(id) == {:error, :closed}
      assert Native.link_owner(id, self()) == {:error, :closed}
      assert Native.send_cancel(id) == :ok
      assert Native.recv_cancel(id) == :ok
      assert Native.link_free(id) == :ok
      assert Native.Driver.active(tip.port, -1) == {:error, :closed}
      assert Native.Driver.active(nock.port, -1) == :ok
      assert Native.send(0, "x") == {:error, :closed}
      assert Native.send(0xFFFF_FFFF_FFFF, "x") == {:error, :closed}
    end

    test "when the connection process dies", context do
      parent = self()

      connection =
        spawn(fn ->
          {tip, nock} = tube(context)
          send(parent, {:ids, tip.id, nock.id})
          Process.sleep(:infinity)
        end)

      assert_receive {:ids, tip, nock}, 5_000
      monitor = Process.monitor(connection)
      Process.exit(connection, :kill)
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      all_gone!(context.before)
      assert Native.send(tip, "x") == {:error, :closed}
      assert Native.recv(nock) == {:error, :closed}
    end

    test "and leaves nothing behind, a hundred times", context do
      for _ <- 1..100 do
        {tip, nock} = tube(context)
        :ok = Native.send(tip.id, "x")
        Port.close(tip.port)
        Port.close(nock.port)
      end

      all_gone!(context.before)
    end
  end
end
