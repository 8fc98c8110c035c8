defmodule Tube.NativeTest do
  # The NIF and the driver by themselves, with no process of ours in between: two domains in this one
  # VM, on a hub of their own. One test at a time, because what is alive is counted.
  use ExUnit.Case, async: false

  alias Tube.Native
  alias Tube.Test.{Eventually, RunDir}

  @moduletag timeout: 60_000
  @max_message 64 * 1024 * 1024

  setup_all do
    run_dir = RunDir.create()
    on_exit(fn -> RunDir.remove(run_dir) end)
    :ok = Tube.Hub.start(run_dir)
    :ok = Native.driver()
    {:ok, one, 1} = Native.attach(:local, run_dir, 1)
    {:ok, two, 2} = Native.attach(:local, run_dir, 2)
    %{run_dir: run_dir, one: one, two: two}
  end

  setup do
    before = Native.stats()

    # What a test leaves open is gone with its process.
    on_exit(fn -> Eventually.true!(fn -> Native.stats() == before end) end)
    %{before: before}
  end

  # Both ends of a new tube. This process is the connection of both, and the owner unless said otherwise.
  defp tube(context, options \\ []) do
    order = Keyword.get(options, :order, 4)
    limit = Keyword.get(options, :max_message, @max_message)
    nonce = System.unique_integer([:positive])
    {:ok, tip, refs} = Native.link_share(context.one, 2, order, order, nonce, limit)

    {:ok, nock} =
      Native.link_map(
        context.two,
        1,
        refs.tx_ring_ref,
        refs.rx_ring_ref,
        refs.event_channel,
        nonce,
        limit
      )

    form = Keyword.get(options, :form, :tube)

    {start(tip, Keyword.get(options, :tip, self()), form),
     start(nock, Keyword.get(options, :nock, self()), form)}
  end

  defp start(id, owner, form) do
    port = Native.link_port(id)
    :ok = Native.link_start(id, port, self(), owner, form)
    %{id: id, port: port}
  end

  # Sends all of it, waiting as Tube does.
  defp send_all(id, message, cont \\ 0) do
    case Native.send(id, message, cont) do
      :ok ->
        :ok

      {:more, cont} ->
        send_all(id, message, cont)

      {:wait, cont} ->
        assert_receive {:"$tube_space", ^id}, 5_000
        send_all(id, message, cont)

      error ->
        error
    end
  end

  defp recv_all(id) do
    case Native.recv(id) do
      :more ->
        recv_all(id)

      :wait ->
        assert_receive {:"$tube_data", ^id}, 5_000
        recv_all(id)

      result ->
        result
    end
  end

  defp fill(id, message \\ :binary.copy("x", 1000)) do
    case Native.send(id, message) do
      :ok -> fill(id, message)
      {:wait, 0} -> :ok
    end
  end

  defp handle(end_), do: %{__struct__: Tube, id: end_.id, pid: self(), port: end_.port}

  # A process that does what it is told, as an owner or sender other than this one.
  defp helper do
    spawn_link(fn -> help() end)
  end

  defp help do
    receive do
      {:do, from, fun} ->
        send(from, {:done, self(), fun.()})
        help()

      :stop ->
        :ok
    end
  end

  defp ask(helper, fun) do
    send(helper, {:do, self(), fun})
    assert_receive {:done, ^helper, result}, 10_000
    result
  end

  defp kill(pid) do
    monitor = Process.monitor(pid)
    Process.unlink(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}, 5_000
  end

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

    test "gives the owner what it does not yet have, and says so once", context do
      {tip, nock} = tube(context)
      id = nock.id
      assert Native.recv(id) == :wait
      for _ <- 1..3, do: :ok = Native.send(tip.id, "hello")
      assert_receive {:"$tube_data", ^id}, 5_000
      for _ <- 1..3, do: assert(Native.recv(id) == {:ok, "hello"})
      assert Native.recv(id) == :wait
      assert Native.recv_cancel(id) == :ok
      :ok = Native.send(tip.id, "unheard")
      refute_receive {:"$tube_data", ^id}, 50
      assert Native.recv(id) == {:ok, "unheard"}
    end

    test "holds a sender back when it is full, and tells it of room", context do
      {tip, nock} = tube(context, order: 0)
      id = tip.id
      :ok = fill(id)
      refute_received {:"$tube_space", ^id}
      for _ <- 1..3, do: {:ok, _} = Native.recv(nock.id)
      assert_receive {:"$tube_space", ^id}, 5_000
      :ok = fill(id)
      assert Native.send_cancel(id, 0) == :ok
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
      assert Native.send_cancel(tip.id, elem(result, 1)) == :ok
    end

    test "refuses a progress that is not the caller's", context do
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

    test "refuses what is longer than the peer takes", context do
      {tip, nock} = tube(context, max_message: 1000)
      assert Native.send(tip.id, :binary.copy("x", 1001)) == {:error, :emsgsize}
      :ok = Native.send(tip.id, :binary.copy("x", 1000))
      assert {:ok, <<_::binary-size(1000)>>} = Native.recv(nock.id)
    end

    test "copies: a message is the receiver's own, whatever is sent later", context do
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

    test "takes only what it is made for", context do
      {tip, _nock} = tube(context)
      assert_raise ArgumentError, fn -> Native.send(tip.id, [1, 2, 3]) end
      assert_raise ArgumentError, fn -> Native.send(tip.id, <<1::1>>) end
      assert_raise ArgumentError, fn -> Native.send(:id, "x") end
      assert_raise ArgumentError, fn -> Native.send(tip.id, "x", -1) end
      assert_raise ArgumentError, fn -> Native.recv(-1) end
      assert Native.active(tip.port, -3) == {:error, :einval}
      assert_raise ArgumentError, fn -> :erlang.port_control(tip.port, 99, "") end
    end
  end

  describe "a sender that dies in the middle of a message" do
    test "does not hold up the others, and its message is never seen", context do
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

    test "is not mistaken for the next sender", context do
      {tip, nock} = tube(context, order: 0)
      first = helper()
      second = helper()
      message = :binary.copy("x", 10_000)
      assert {:wait, _} = ask(first, fn -> Native.send(tip.id, message) end)
      assert {:wait, 0} = ask(second, fn -> Native.send(tip.id, "second") end)
      assert ask(first, fn -> Native.send_cancel(tip.id, 1) end) == :ok
      assert Native.recv(nock.id) == :wait
      assert {:wait, cont} = ask(second, fn -> Native.send(tip.id, message) end)
      assert cont > 0
      # The first has nothing to do with it any more, however it ends.
      kill(first)
      parent = self()
      spawn_link(fn -> send(parent, {:got, recv_all(nock.id)}) end)
      assert ask(second, fn -> Native.send(tip.id, message, cont) end) != {:error, :einval}
    end

    test "with a link that is closed before it", context do
      {tip, _nock} = tube(context, order: 0)
      sender = helper()
      assert {:wait, cont} = ask(sender, fn -> Native.send(tip.id, :binary.copy("x", 10_000)) end)
      Port.close(tip.port)
      assert ask(sender, fn -> Native.send(tip.id, "x", cont) end) == {:error, :closed}
      assert ask(sender, fn -> Native.send_cancel(tip.id, cont) end) == :ok
      kill(sender)
    end
  end

  describe "an active owner" do
    test "gets messages with the handle of the tube", context do
      {tip, nock} = tube(context)
      tube = handle(nock)
      :ok = Native.send(tip.id, "before")
      assert Native.active(nock.port, -1) == :ok
      assert_receive {:tube, ^tube, "before"}, 5_000

      for size <- [0, 1, 64, 65, 30_000, 1_000_000] do
        message = :crypto.strong_rand_bytes(size)
        spawn_link(fn -> :ok = send_all(tip.id, message) end)
        assert_receive {:tube, ^tube, ^message}, 5_000
      end

      assert Native.recv(nock.id) == {:error, :einval}
    end

    test "in the form of a port gets a port's messages", context do
      {tip, nock} = tube(context, form: :port)
      me = self()
      :ok = Native.active(nock.port, -1)
      :ok = Native.send(tip.id, "hello")
      assert_receive {^me, {:data, "hello"}}, 5_000
      :ok = Native.shutdown(tip.id)
      id = nock.id
      assert_receive {:"$tube", ^id, :drained}, 5_000
      refute_received {:tube_closed, _}
    end

    test "may be another process than the connection", context do
      owner = helper()
      {tip, nock} = tube(context, nock: owner)
      tube = handle(nock)
      assert Native.recv(nock.id) == {:error, :not_owner}
      assert ask(owner, fn -> Native.recv(nock.id) end) == :wait
      assert ask(owner, fn -> Native.active(nock.port, -1) end) == :ok
      other = helper()
      assert ask(other, fn -> Native.active(nock.port, 0) end) == {:error, :not_owner}
      :ok = Native.send(tip.id, "hello")

      got = fn ->
        receive do
          {:tube, tube, data} -> {tube, data}
        after
          5_000 -> :nothing
        end
      end

      assert ask(owner, got) == {tube, "hello"}
      # The connection may stop it, to hand it over.
      assert Native.active(nock.port, 0) == :ok
      assert Native.link_owner(nock.id, self()) == :ok
      assert ask(owner, fn -> Native.recv(nock.id) end) == {:error, :not_owner}
      :ok = Native.send(tip.id, "mine")
      assert recv_all(nock.id) == {:ok, "mine"}
    end

    test "asks for one, or for some", context do
      {tip, nock} = tube(context)
      tube = handle(nock)
      for n <- 1..6, do: :ok = Native.send(tip.id, "#{n}")
      :ok = Native.active(nock.port, -2)
      assert_receive {:tube, ^tube, "1"}, 5_000
      refute_receive {:tube, ^tube, _}, 20
      :ok = Native.active(nock.port, 2)
      assert_receive {:tube, ^tube, "2"}, 5_000
      assert_receive {:tube, ^tube, "3"}, 5_000
      assert_receive {:tube_passive, ^tube}, 5_000
      refute_receive {:tube, ^tube, _}, 20
      assert {:ok, %{active: 0}} = Native.info(nock.id)
      assert Native.recv(nock.id) == {:ok, "4"}
      :ok = Native.active(nock.port, 5)
      assert_receive {:tube, ^tube, "6"}, 5_000
      assert {:ok, %{active: 3}} = Native.info(nock.id)
      :ok = Native.active(nock.port, 0)
      :ok = Native.send(tip.id, "7")
      refute_receive {:tube, ^tube, "7"}, 50
    end

    test "that dies stops the delivery and loses nothing for the next", context do
      owner = helper()
      {tip, nock} = tube(context, nock: owner)
      assert ask(owner, fn -> Native.active(nock.port, -1) end) == :ok
      kill(owner)
      for n <- 1..5, do: :ok = Native.send(tip.id, "#{n}")
      # The message with which the death was noticed went the way of its receiver.
      Eventually.true!(fn -> match?({:ok, %{active: 0}}, Native.info(nock.id)) end)
      :ok = Native.link_owner(nock.id, self())
      assert recv_all(nock.id) == {:ok, "2"}
    end

    test "gets much without a scheduler being held, and all of it in order", context do
      {tip, nock} = tube(context, order: 8)
      tube = handle(nock)
      :ok = Native.active(nock.port, -1)
      count = 20_000
      spawn_link(fn -> for n <- 1..count, do: :ok = send_all(tip.id, <<n::32, 0::480>>) end)

      for n <- 1..count do
        assert_receive {:tube, ^tube, <<^n::32, 0::480>>}, 5_000
      end
    end
  end

  describe "the end" do
    test "by shutdown: the rest of the data, then the end, and events in their order", context do
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
      refute_receive {:"$tube", ^id, :told}, 20
      assert Native.recv(id) == {:error, :closed}
      assert_receive {:"$tube", ^id, :told}, 5_000
      # An owner that is active later is told, too.
      :ok = Native.active(nock.port, -1)
      assert_receive {:tube_closed, ^tube}, 5_000
      # The other direction is still open.
      :ok = Native.send(id, "reply")
      assert recv_all(tip.id) == {:ok, "reply"}
    end

    test "by the peer's close", context do
      {tip, nock} = tube(context)
      {id, tube} = {nock.id, handle(nock)}
      :ok = Native.active(nock.port, -1)
      :ok = Native.send(tip.id, "last")
      Port.close(tip.port)
      assert_receive {:tube, ^tube, "last"}, 5_000
      assert_receive {:tube_closed, ^tube}, 5_000
      assert_receive {:"$tube", ^id, :fin}, 5_000
      assert_receive {:"$tube", ^id, :gone}, 5_000
      assert_receive {:"$tube", ^id, :drained}, 5_000
      assert_receive {:"$tube", ^id, :told}, 5_000
      refute_received {:tube_error, _, _}
      assert Native.send(id, "hello?") == {:error, :closed}
      refute_receive {:"$tube", ^id, _}, 20
    end

    test "by our own close: those who wait are told, and ids mean nothing any more", context do
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
      assert Native.send_cancel(id, 3) == :ok
      assert Native.recv_cancel(id) == :ok
      assert Native.link_free(id) == :ok
      assert Native.active(tip.port, -1) == {:error, :closed}
      assert Native.active(nock.port, -1) == :ok
      assert Native.send(0, "x") == {:error, :closed}
      assert Native.send(0xFFFF_FFFF_FFFF, "x") == {:error, :closed}
    end

    test "by the death of the connection", context do
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
      Eventually.true!(fn -> Native.stats() == context.before end)
      assert Native.send(tip, "x") == {:error, :closed}
      assert Native.recv(nock) == {:error, :closed}
    end

    test "leaves nothing, many times over", context do
      for _ <- 1..100 do
        {tip, nock} = tube(context)
        :ok = Native.send(tip.id, "x")
        Port.close(tip.port)
        Port.close(nock.port)
      end

      Eventually.true!(fn -> Native.stats() == context.before end)
    end
  end

  describe "making a link" do
    test "says what it has, and counts it", context do
      {tip, _nock} = tube(context, order: 2)
      stats = Native.stats()
      assert stats.links - context.before.links == 2
      assert stats.fds - context.before.fds == 2
      assert stats.pages - context.before.pages == 2 * (2 + 4 + 4)
      :ok = Native.send(tip.id, "hello")
      assert {:ok, info} = Native.info(tip.id)
      assert %{messages: 1, bytes: 5, ring: 16_384, finished: false} = info.tx
      assert %{messages: 0, ring: 16_384, finished: false} = info.rx
      assert %{gone: false, active: 0} = info
    end

    test "fails with a reason", context do
      share = &Native.link_share(context.one, 2, &1, &1, 1, 1000)
      assert share.(9) == {:error, :einval}
      assert {:ok, id, refs} = share.(0)
      %{tx_ring_ref: tx, rx_ring_ref: rx, event_channel: port} = refs
      assert Native.link_map(context.two, 1, tx, rx, port + 77, 1, 1000) == {:error, :enoent}
      assert Native.link_map(context.two, 1, tx, rx, port, 2, 1000) == {:error, :protocol}
      assert Native.link_free(id) == :ok
      assert Native.link_free(id) == :ok
      assert Native.stats() == context.before
    end

    test "is not for a port of another image, nor for a second one", context do
      {:ok, id, _refs} = Native.link_share(context.one, 2, 0, 0, 1, 1000)
      open = &Port.open({:spawn_driver, String.to_charlist(&1)}, [:binary])

      for wrong <- [
            "tube link #{id} 0.0.0-0",
            "tube link #{id}",
            "tube link #{id + 1} #{Native.build()}",
            "tube stream #{id} #{Native.build()}",
            "tube wire #{id} #{Native.build()}",
            "tube link x #{Native.build()}",
            "tube"
          ] do
        assert_raise ArgumentError, fn -> open.(wrong) end
      end

      port = Native.link_port(id)
      assert_raise ArgumentError, fn -> Native.link_port(id) end
      # It has a port now: whoever has that frees it.
      assert Native.link_free(id) == :ok
      assert {:ok, _} = Native.info(id)
      Port.close(port)
      assert Native.info(id) == {:error, :closed}
    end

    test "starts once, for the process that owns the port", context do
      {:ok, id, _refs} = Native.link_share(context.one, 2, 0, 0, 1, 1000)
      other = helper()
      port = Native.link_port(id)
      assert ask(other, fn -> Native.active(port, -1) end) == {:error, :not_owner}
      assert Native.link_start(id, port, other, self(), :tube) == {:error, :einval}
      assert_raise ArgumentError, fn -> Native.link_start(id, port, self(), self(), :other) end
      Port.close(port)
    end

    test "takes no commands, which are for the process of the tube", context do
      Process.flag(:trap_exit, true)
      {tip, _nock} = tube(context)
      port = tip.port
      Port.command(port, "hello")
      assert_receive {:EXIT, ^port, :badsig}, 5_000
    end
  end

  describe "a stream" do
    test "talks to the store and ends by closing", context do
      {:ok, id} = Native.xenbus(context.one)
      assert Native.stats().streams == context.before.streams + 1
      port = Native.stream_port(id)
      # GET_DOMAIN_PATH of domain 1: type 10, request 7, no transaction.
      request = fn n -> <<10::little-32, n::little-32, 0::32, 2::little-32, "1", 0>> end
      Port.command(port, request.(7))
      assert_receive {^port, {:data, answer}}, 5_000
      assert <<10::little-32, 7::little-32, 0::32, n::little-32, path::binary-size(n)>> = answer
      assert String.trim_trailing(path, "\0") == "/local/domain/1"
      Port.command(port, for(n <- 1..100, do: request.(n)))
      assert answers(port, 100) == Enum.to_list(1..100)
      assert_raise ArgumentError, fn -> Native.stream_port(id) end
      Port.close(port)
      Eventually.true!(fn -> Native.stats() == context.before end)
    end

    test "ends normally at the end of file", context do
      Process.flag(:trap_exit, true)
      {:ok, platform, _domid} = Native.attach(:local, context.run_dir, -1)
      {:ok, life} = Native.life(platform)
      {:ok, store} = Native.xenbus(platform)
      port = Native.stream_port(store)
      assert Native.stream_free(life) == :ok
      assert Native.stream_free(life) == :ok
      assert Native.detach(platform) == :ok
      # The domain is gone, and with it its connections to the store.
      assert_receive {:EXIT, ^port, :normal}, 5_000
      assert Native.xenbus(platform) == {:error, :enotconn}
      assert Native.link_share(platform, 1, 0, 0, 1, 1000) == {:error, :enotconn}
      assert Native.detach(platform) == :ok
    end
  end

  # The req_ids of so many answers.
  defp answers(port, count, bytes \\ "", seen \\ [])
  defp answers(_port, 0, "", seen), do: Enum.reverse(seen)

  defp answers(port, count, bytes, seen) do
    case bytes do
      <<_::32, id::little-32, _::32, n::little-32, _::binary-size(n), rest::binary>> ->
        answers(port, count - 1, rest, [id | seen])

      _part ->
        assert_receive {^port, {:data, more}}, 5_000
        answers(port, count, bytes <> more, seen)
    end
  end

  describe "the library" do
    test "attaches with a reason why not", context do
      assert {:error, {:domid_taken, text}} = Native.attach(:local, context.run_dir, 1)
      assert is_binary(text) and text != ""
      assert {:error, {reason, _text}} = Native.attach(:local, context.run_dir <> "/none", -1)
      assert reason in [:enoent, :bad_run_dir]
      assert_raise ArgumentError, fn -> Native.attach(:local, context.run_dir, 0x7FF0) end
      assert_raise ArgumentError, fn -> Native.attach(:local, context.run_dir, -2) end
      assert_raise ArgumentError, fn -> Native.attach(:moon, context.run_dir, -1) end
    end

    test "stays when the process that loaded the driver is gone", context do
      {tip, nock} = tube(context)
      kill(spawn_link(fn -> :ok = Native.driver() && Process.sleep(:infinity) end))
      loader = helper()
      assert ask(loader, fn -> Native.driver() end) == :ok
      kill(loader)
      :ok = Native.send(tip.id, "still here")
      assert recv_all(nock.id) == {:ok, "still here"}
      assert Native.driver() == :ok
    end

    test "names its image" do
      assert Native.build() =~ ~r/^\d+\.\d+\.\d+-[0-9a-f]{16}$/
      assert Native.build() == Native.build()
    end

    test "refuses to be loaded over itself" do
      assert {:error, {reason, _text}} = Native.load()
      assert reason in [:reload, :upgrade, :bad_lib]
    end
  end
end
