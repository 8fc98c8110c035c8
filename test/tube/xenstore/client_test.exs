defmodule Tube.Xenstore.ClientTest do
  use ExUnit.Case, async: true

  import Tube.Test.FakeStore
  import Tube.Test.StoreCounts

  alias Tube.Xenstore
  alias Tube.Xenstore.Client

  # Takes nothing at first, like a port with a long queue.
  defmodule Busy do
    @behaviour Tube.Xenstore.Transport
    alias Tube.Test.FakeStore.Socket

    @impl true
    defdelegate open(path), to: Socket
    @impl true
    defdelegate event(socket, message), to: Socket
    @impl true
    defdelegate close(socket), to: Socket
    @impl true
    defdelegate max_payload(socket), to: Socket

    @impl true
    def send(socket, packet) do
      tries = Process.get(:tries, 0)
      Process.put(:tries, tries + 1)
      if tries < 3, do: :busy, else: Socket.send(socket, packet)
    end
  end

  setup :connected

  describe "requests" do
    test "get replies out of order and in pieces", %{client: client, store: store} do
      tasks = for n <- 1..5, do: Task.async(fn -> {n, Xenstore.read(client, "/#{n}")} end)

      requests = for _ <- 1..5, do: request(store, :read, 5_000)

      bytes =
        for {id, 0, path} <- Enum.reverse(requests),
            into: "",
            do: packet(:read, id, "value of " <> path)

      for <<byte <- bytes>>, do: :ok = :gen_tcp.send(store, <<byte>>)

      for {n, result} <- Task.await_many(tasks), do: assert(result == {:ok, "value of /#{n}\0"})
    end

    test "of every kind are encoded and decoded", %{client: client, store: store} do
      for {call, type, payload, reply, result} <- [
            {&Xenstore.write(&1, "/a", ["v", ?1]), :write, "/a\0v1", "OK\0", :ok},
            {&Xenstore.perform(&1, {:mkdir, "/a"}), :mkdir, "/a\0", "OK\0", :ok},
            {&Xenstore.rm(&1, "/a"), :rm, "/a\0", "OK\0", :ok},
            {&Xenstore.directory(&1, "/a"), :directory, "/a\0", "x\0y\0", {:ok, ["x", "y"]}},
            {&Xenstore.perform(&1, {:get_perms, "/a"}), :get_perms, "/a\0", "n5\0r7\0",
             {:ok, [n: 5, r: 7]}},
            {&Xenstore.perform(&1, {:set_perms, "/a", [n: 5]}), :set_perms, "/a\0n5\0", "OK\0",
             :ok}
          ] do
        task = Task.async(fn -> call.(client) end)
        assert reply(store, type, reply) == {0, payload}
        assert Task.await(task) == result
      end
    end

    test "get the store's error, known or not", %{client: client, store: store} do
      for {name, reason} <- [
            {"ENOENT", :enoent},
            {"EQUOTA", :enospc},
            {"EWHATEVER", {:xenstore, "EWHATEVER"}}
          ] do
        task = Task.async(fn -> Xenstore.read(client, "/a") end)
        refuse(store, :read, name)
        assert Task.await(task) == {:error, reason}
      end
    end

    test "that are malformed or too long are not sent", %{client: client, store: store} do
      assert Xenstore.read(client, "/a//b") == {:error, :einval}
      assert Xenstore.read(client, "/a\0b") == {:error, :einval}
      assert Xenstore.perform(client, {:set_perms, "/a", []}) == {:error, :einval}
      assert Xenstore.write(client, "/a", String.duplicate("x", 4094)) == {:error, :e2big}
      assert silent?(store)

      # The maximum length.
      task = Task.async(fn -> Xenstore.write(client, "/a", String.duplicate("x", 4093)) end)
      assert {0, payload} = reply(store, :write)
      assert byte_size(payload) == 4096
      assert Task.await(task) == :ok
    end

    test "without a reply end in time, and late replies are dropped", %{
      client: client,
      store: store
    } do
      assert Xenstore.read(client, "/a", timeout: 20) == {:error, :timeout}
      {late, 0, "/a\0"} = request(store, :read, 1_000)

      task = Task.async(fn -> Xenstore.read(client, "/b") end)
      send_packet(store, :read, late, "too late")
      reply(store, :read, "b")
      assert Task.await(task) == {:ok, "b"}
      refute_received _anything
      assert %{in_flight: 0, jobs: 0, queued: 0} = counts(client)
    end

    test "that time out in the queue are not sent", %{
      client: client,
      store: store
    } do
      window = 16
      hanging = for n <- 1..window, do: Task.async(fn -> Xenstore.read(client, "/#{n}") end)
      ids = for _ <- 1..window, do: elem(request(store, :read, 1_000), 0)

      assert Xenstore.write(client, "/late", "v", timeout: 20) == {:error, :timeout}
      assert silent?(store)
      task = Task.async(fn -> Xenstore.read(client, "/next") end)
      for id <- ids, do: send_packet(store, :read, id, "v")
      # The write was never sent.
      assert reply(store, :read, "v") == {0, "/next\0"}
      assert Task.await(task) == {:ok, "v"}
      for {:ok, "v"} <- Task.await_many(hanging), do: :ok
    end

    test "need a time limit and known options", %{client: client} do
      for opts <- [[timeout: -1], [timeout: :infinity], [timeout: 1.5], [limit: 1]] do
        assert_raise ArgumentError, ~r/timeout: milliseconds/, fn ->
          Xenstore.read(client, "/a", opts)
        end
      end

      assert_raise ArgumentError, ~r/:tries must be/, fn ->
        Xenstore.transaction(client, [], tries: 0)
      end
    end

    test "without waiting return messages", %{client: client, store: store} do
      assert Xenstore.request(client, :one, {:read, "/a"}) == :ok
      assert Xenstore.request(client, :two, {:read, "no//path"}) == :ok
      assert_receive {:xenstore, :two, {:error, :einval}}, 5_000
      reply(store, :read, "v")
      assert_receive {:xenstore, :one, {:ok, "v"}}, 5_000

      assert Xenstore.request(client, :three, {:write, "/a", "v"}, timeout: 10) == :ok
      assert_receive {:xenstore, :three, {:error, :timeout}}, 5_000
    end

    test "reach the store in order", %{client: client, store: store} do
      for n <- 1..40, do: Xenstore.request(client, n, {:write, "/#{n}", ""})

      for n <- 1..40 do
        path = "/#{n}\0"
        assert {0, ^path} = reply(store, :write)
      end
    end
  end

  describe "the connection" do
    test "that ends informs all callers and subscribers", %{
      client: client,
      store: store,
      monitor: monitor
    } do
      Xenstore.request(client, :w, {:watch, "/a", "/a", :t})
      reply(store, :watch)
      assert_receive {:xenstore, :w, :ok}, 5_000
      waiting = Task.async(fn -> Xenstore.read(client, "/a") end)
      Xenstore.request(client, :async, {:read, "/b"})

      in_transaction =
        Task.async(fn -> Xenstore.transaction(client, fn tx -> Xenstore.read(tx, "/a") end) end)

      for _ <- 1..3, do: request(store)

      :gen_tcp.close(store)
      assert Task.await(waiting) == {:error, :store_lost}
      assert Task.await(in_transaction) == {:error, :store_lost}
      assert_receive {:xenstore, :async, {:error, :store_lost}}, 5_000
      assert_receive {:xenstore_lost, ^client}, 5_000
      assert_receive {:DOWN, ^monitor, _, _, {:shutdown, {:store_lost, _}}}, 5_000

      assert Xenstore.read(client, "/a") == {:error, :store_lost}
      assert Xenstore.watch(client, "/a", "/a", :t) == {:error, :store_lost}
      Xenstore.request(client, :late, {:read, "/b"})
      assert_receive {:xenstore, :late, {:error, :store_lost}}, 5_000
    end

    test "that ends in the middle of a reply loses the reply", %{client: client, store: store} do
      task = Task.async(fn -> Xenstore.read(client, "/a") end)
      {id, 0, _} = request(store, :read, 1_000)
      :gen_tcp.send(store, binary_part(packet(:read, id, "value"), 0, 18))
      :gen_tcp.close(store)
      assert Task.await(task) == {:error, :store_lost}
    end

    test "is closed at the first malformed packet", %{
      client: client,
      store: store,
      monitor: monitor
    } do
      task = Task.async(fn -> Xenstore.read(client, "/a") end)
      request(store)
      :gen_tcp.send(store, <<2::32-native, 1::32-native, 0::32-native, 0xFFFFFF::32-native>>)
      assert Task.await(task) == {:error, :store_lost}
      assert_receive {:DOWN, ^monitor, _, _, {:shutdown, {:protocol, text}}}, 5_000
      assert text =~ "#{0xFFFFFF}"
      assert :gen_tcp.recv(store, 1, 1_000) == {:error, :closed}
    end

    test "is closed by a reply without a request", %{store: store, monitor: monitor} do
      send_packet(store, :read, 99, "v")
      assert_receive {:DOWN, ^monitor, _, _, {:shutdown, {:protocol, _}}}, 5_000
    end

    test "closes on any garbage without a crash", %{} do
      for seed <- 1..30 do
        {client, store} = start()
        monitor = Process.monitor(client)
        # Once it has replied, it has the monitor for certain.
        %{} = counts(client)
        :rand.seed(:exsss, seed)
        :gen_tcp.send(store, :rand.bytes(200))
        :gen_tcp.close(store)
        assert_receive {:DOWN, ^monitor, _, _, {:shutdown, _}}, 5_000
      end
    end

    test "is not reported to a process without a subscription", %{
      client: client,
      store: store,
      monitor: monitor
    } do
      Xenstore.request(client, :w, {:watch, "/a", "/a", :t})
      reply(store, :watch)
      assert_receive {:xenstore, :w, :ok}, 5_000
      Xenstore.unwatch(client, :t)
      :gen_tcp.close(store)
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      refute_received {:xenstore_lost, _}
    end

    test "that takes nothing for a while is retried, and nothing is sent twice" do
      {client, store} = start(Busy)
      for n <- 1..5, do: Xenstore.request(client, n, {:write, "/#{n}", ""})

      for n <- 1..5 do
        path = "/#{n}\0"
        assert {0, ^path} = reply(store, :write)
        assert_receive {:xenstore, ^n, :ok}, 5_000
      end

      assert silent?(store)
      Process.exit(client, :kill)
    end

    test "to the device leaves room for the header in 4096 bytes" do
      assert Tube.Xenstore.Stream.max_payload({:port, :socket}) == 4096
      assert Tube.Xenstore.Stream.max_payload({:port, :device}) == 4080
    end

    test "needs something to connect to" do
      Process.flag(:trap_exit, true)

      assert {:error, {:shutdown, :enoent}} =
               Client.start_link({Tube.Test.FakeStore.Socket, "/nonexistent/socket"})
    end
  end
end
