defmodule Tube.Native.LibraryTest do
  use Tube.Test.NativeCase, async: false

  describe "making a link" do
    test "reports its counters, and is counted", context do
      {tip, _nock} = tube(context, order: 2)
      stats = Native.live_counts()
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
      all_gone!(context.before)
    end

    test "does not work for a port with another build id, nor for a second port", context do
      {:ok, id, _refs} = Native.link_share(context.one, 2, 0, 0, 1, 1000)
      open = &Port.open({:spawn_driver, String.to_charlist(&1)}, [:binary])

      for wrong <- [
            "tube link #{id} 0.0.0-0",
            "tube link #{id}",
            "tube link #{id + 1} #{Native.build_id()}",
            "tube stream #{id} #{Native.build_id()}",
            "tube wire #{id} #{Native.build_id()}",
            "tube link x #{Native.build_id()}",
            "tube"
          ] do
        assert_raise ArgumentError, fn -> open.(wrong) end
      end

      port = Native.Driver.open_link(id)
      assert_raise ArgumentError, fn -> Native.Driver.open_link(id) end
      # It has a port now, and only closing that frees it.
      assert Native.link_free(id) == :ok
      assert {:ok, _} = Native.info(id)
      Port.close(port)
      assert Native.info(id) == {:error, :closed}
    end

    test "starts only for the process that owns the port", context do
      {:ok, id, _refs} = Native.link_share(context.one, 2, 0, 0, 1, 1000)
      other = helper()
      port = Native.Driver.open_link(id)
      assert ask(other, fn -> Native.Driver.active(port, -1) end) == {:error, :not_owner}
      assert Native.Driver.start(id, port, other, self(), :tube) == {:error, :einval}
      assert_raise ArgumentError, fn -> Native.Driver.start(id, port, self(), self(), :other) end
      Port.close(port)
    end

    test "takes no port commands", context do
      Process.flag(:trap_exit, true)
      {tip, _nock} = tube(context)
      port = tip.port
      Port.command(port, "hello")
      assert_receive {:EXIT, ^port, :badsig}, 5_000
    end
  end

  describe "a stream" do
    test "connects to the store until its port is closed", context do
      {:ok, id} = Native.xenbus(context.one)
      assert Native.live_counts().streams == context.before.streams + 1
      port = Native.Driver.open_stream(id)
      Port.command(port, domain_path(7))
      assert_receive {^port, {:data, reply}}, 5_000
      assert <<10::little-32, 7::little-32, 0::32, n::little-32, path::binary-size(n)>> = reply
      assert String.trim_trailing(path, "\0") == "/local/domain/1"
      Port.command(port, for(n <- 1..100, do: domain_path(n)))
      assert req_ids(port, 100) == Enum.to_list(1..100)
      assert_raise ArgumentError, fn -> Native.Driver.open_stream(id) end
      Port.close(port)
      all_gone!(context.before)
    end

    test "ends normally at the end of file", context do
      Process.flag(:trap_exit, true)
      {:ok, platform, _domid} = Native.attach(:local, context.run_dir, -1)
      {:ok, life} = Native.life(platform)
      {:ok, store} = Native.xenbus(platform)
      port = Native.Driver.open_stream(store)

      # The reply shows that the hub has accepted the connection. One that it has not accepted would end
      # with a reset.
      Port.command(port, domain_path(1))
      assert req_ids(port, 1) == [1]
      assert Native.stream_free(life) == :ok
      assert Native.stream_free(life) == :ok
      assert Native.detach(platform) == :ok
      # The hub closes the store connections of a domain that is gone.
      assert_receive {:EXIT, ^port, :normal}, 5_000
      assert Native.xenbus(platform) == {:error, :enotconn}
      assert Native.link_share(platform, 1, 0, 0, 1, 1000) == {:error, :enotconn}
      assert Native.detach(platform) == :ok
    end
  end

  # GET_DOMAIN_PATH of domain 1, in no transaction.
  defp domain_path(req_id), do: <<10::little-32, req_id::little-32, 0::32, 2::little-32, "1", 0>>

  # The req_ids of `count` replies.
  defp req_ids(port, count, bytes \\ "", seen \\ [])
  defp req_ids(_port, 0, "", seen), do: Enum.reverse(seen)

  defp req_ids(port, count, bytes, seen) do
    case bytes do
      <<_::32, id::little-32, _::32, n::little-32, _::binary-size(n), rest::binary>> ->
        req_ids(port, count - 1, rest, [id | seen])

      _part ->
        assert_receive {^port, {:data, more}}, 5_000
        req_ids(port, count, bytes <> more, seen)
    end
  end

  describe "the library" do
    test "returns a reason if it cannot attach", context do
      assert {:error, {:domid_taken, text}} = Native.attach(:local, context.run_dir, 1)
      assert is_binary(text) and text != ""
      assert {:error, {reason, _text}} = Native.attach(:local, context.run_dir <> "/none", -1)
      assert reason in [:enoent, :bad_run_dir]
      assert_raise ArgumentError, fn -> Native.attach(:local, context.run_dir, 0x7FF0) end
      assert_raise ArgumentError, fn -> Native.attach(:local, context.run_dir, -2) end
      assert_raise ArgumentError, fn -> Native.attach(:moon, context.run_dir, -1) end
    end

    test "stays loaded after the process that loaded the driver has died", context do
      {tip, nock} = tube(context)
      loader = helper()
      assert ask(loader, fn -> Native.Driver.load() end) == :ok
      kill(loader)
      :ok = Native.send(tip.id, "still here")
      assert recv_all(nock.id) == {:ok, "still here"}
      assert Native.Driver.load() == :ok
    end

    test "has a build id" do
      assert Native.build_id() =~ ~r/^\d+\.\d+\.\d+-[0-9a-f]{16}$/
      assert Native.build_id() == Native.build_id()
    end

    test "cannot be loaded a second time" do
      assert {:error, {reason, _text}} = Native.load()
      assert reason in [:reload, :upgrade, :bad_lib]
    end
  end
end
