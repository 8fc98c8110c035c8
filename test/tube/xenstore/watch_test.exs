defmodule Tube.Xenstore.WatchTest do
  use ExUnit.Case, async: true

  import Tube.Test.FakeStore
  import Tube.Test.Eventually
  import Tube.Test.StoreCounts

  alias Tube.Xenstore

  setup :connected

  describe "a watch" do
    test "is shared, filtered by interest, and removed with its last subscriber", %{
      client: client,
      store: store
    } do
      Xenstore.request(client, :w1, {:watch, "/d", "/d/5", :five})
      {0, registration} = reply(store, :watch)
      ["/d", wire, ""] = String.split(registration, "\0")
      assert_receive {:xenstore, :w1, :ok}, 5_000
      refute_received {:xenstore_watch, _, _}
      :gen_tcp.send(store, watch_event("/d", wire))
      assert_receive {:xenstore_watch, :five, "/d"}, 5_000

      # The second one needs no watch of the store, and gets a first event too.
      assert Xenstore.watch(client, "/d", "/d/7", {:any, "term"}) == :ok
      assert_receive {:xenstore_watch, {:any, "term"}, "/d"}, 5_000
      Xenstore.ack(client, :five)
      Xenstore.ack(client, {:any, "term"})

      :gen_tcp.send(store, watch_event("/d/7/x", wire) <> watch_event("/d/5", wire))
      assert_receive {:xenstore_watch, {:any, "term"}, "/d/7/x"}, 5_000
      assert_receive {:xenstore_watch, :five, "/d/5"}, 5_000

      assert Xenstore.unwatch(client, :five) == :ok
      assert silent?(store)
      assert Xenstore.unwatch(client, {:any, "term"}) == :ok
      assert {0, ^registration} = reply(store, :unwatch)
      assert Xenstore.unwatch(client, :five) == {:error, :enoent}
      assert %{watches: 0, monitors: 0} = counts(client)
    end

    test "ends with its subscriber", %{client: client, store: store} do
      pid =
        spawn(fn ->
          Xenstore.watch(client, "/d", "/d", :a)
          Xenstore.watch(client, "/d", "/d", :b)
          Process.sleep(:infinity)
        end)

      reply(store, :watch)
      true!(fn -> counts(client).jobs == 0 end)
      Process.exit(pid, :kill)
      assert {0, "/d\0" <> _} = reply(store, :unwatch)
      assert %{watches: 0, monitors: 0, jobs: 0} = counts(client)
    end

    test "that the store has already counts as set", %{client: client, store: store} do
      task = Task.async(fn -> {Xenstore.watch(client, "/d", "/d", :a), next_message()} end)
      refuse(store, :watch, "EEXIST")
      assert Task.await(task) == {:ok, {:xenstore_watch, :a, "/d"}}
    end

    test "that the store refuses fails for all waiting subscribers", %{
      client: client,
      store: store
    } do
      Xenstore.request(client, :w1, {:watch, "/d", "/d", :a})
      Xenstore.request(client, :w2, {:watch, "/d", "/d/x", :b})
      refuse(store, :watch, "ENOSPC")
      assert_receive {:xenstore, :w1, {:error, :enospc}}, 5_000
      assert_receive {:xenstore, :w2, {:error, :enospc}}, 5_000
      assert %{watches: 0, monitors: 0, jobs: 0} = counts(client)
      assert silent?(store)
    end

    test "that is not confirmed in time is removed", %{client: client, store: store} do
      assert Xenstore.watch(client, "/d", "/d", :a, timeout: 10) == {:error, :timeout}
      {id, 0, registration} = request(store, :watch, 1_000)
      {_, 0, ^registration} = request(store, :unwatch, 1_000)
      send_packet(store, :watch, id, "OK\0")
      assert %{watches: 0, monitors: 0} = counts(client)
    end

    test "needs a related path and interest", %{client: client, store: store} do
      for {path, interest} <- [{"/a", "/b"}, {"a", "a"}, {"/a/", "/a/"}, {"/a", nil}, {:a, "/a"}] do
        assert Xenstore.watch(client, path, interest, :t) == {:error, :einval}
      end

      Xenstore.request(client, :w, {:watch, "/a", "/a", :t})
      reply(store, :watch)
      assert_receive {:xenstore, :w, :ok}, 5_000
      assert Xenstore.watch(client, "/a", "/a", :t) == {:error, :eexist}
    end

    test "in a storm costs its subscriber one message, and the client bounded memory", %{
      client: client,
      store: store
    } do
      Xenstore.request(client, :w, {:watch, "/local/domain", "/local/domain", :t})
      {0, registration} = reply(store, :watch)
      ["/local/domain", wire, ""] = String.split(registration, "\0")
      assert_receive {:xenstore, :w, :ok}, 5_000
      :gen_tcp.send(store, watch_event("/local/domain", wire))
      assert_receive {:xenstore_watch, :t, "/local/domain"}, 5_000
      {:memory, before} = Process.info(client, :memory)

      # A hostile domain 7, and one open request of domain 5 in the middle of its storm.
      storm = fn n ->
        for i <- 1..50_000, into: "", do: watch_event("/local/domain/7/data/#{n}x#{i}", wire)
      end

      :ok = :gen_tcp.send(store, storm.(1))
      :ok = :gen_tcp.send(store, watch_event("/local/domain/5/data/nock/1/0", wire))
      :ok = :gen_tcp.send(store, storm.(2))

      # Once a later request has its reply, the client has read all of it.
      task = Task.async(fn -> Xenstore.read(client, "/a", timeout: 30_000) end)
      reply(store, :read, "v")
      assert {:ok, "v"} = Task.await(task, 30_000)

      assert Process.info(self(), :message_queue_len) == {:message_queue_len, 0}
      :erlang.garbage_collect(client)
      {:memory, later} = Process.info(client, :memory)
      assert later - before < 200_000

      delivered = drain(client, :t)
      assert Enum.sort(delivered) == ["/local/domain/5/data/nock/1/0", "/local/domain/7"]
    end
  end

  defp next_message do
    receive do
      message -> message
    after
      5_000 -> :nothing
    end
  end

  # All events of a subscriber that acknowledges each.
  defp drain(client, token) do
    Xenstore.ack(client, token)
    # The call comes after the acknowledgement, so its reply comes after an event.
    counts(client)

    receive do
      {:xenstore_watch, ^token, path} -> [path | drain(client, token)]
    after
      0 -> []
    end
  end
end
