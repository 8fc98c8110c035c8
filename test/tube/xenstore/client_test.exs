defmodule Tube.Xenstore.ClientTest do
  use ExUnit.Case, async: true

  import Tube.Test.FakeStore
  import Tube.Test.Eventually

  alias Tube.Xenstore
  alias Tube.Xenstore.Client

  # Takes nothing at first, as a port with a long queue.
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

  setup do
    {client, store} = start()
    on_exit(fn -> Process.exit(client, :kill) end)
    monitor = Process.monitor(client)
    # It has the monitor for certain once it has answered.
    %{} = Client.info(client)
    %{client: client, store: store, monitor: monitor}
  end

  # In another process: a caller waits while the test plays the store.
  defp async(fun), do: Task.async(fun)

  describe "requests" do
    test "are answered out of order and in pieces", %{client: client, store: store} do
      tasks = for n <- 1..5, do: async(fn -> {n, Xenstore.read(client, "/#{n}")} end)

      requests = for _ <- 1..5, do: request(store, :read, 5_000)

      bytes =
        for {id, 0, path} <- Enum.reverse(requests),
            into: "",
            do: packet(:read, id, "value of " <> path)

      for <<byte <- bytes>>, do: :ok = :gen_tcp.send(store, <<byte>>)

      for {n, result} <- Task.await_many(tasks), do: assert(result == {:ok, "value of /#{n}\0"})
    end

    test "of every kind say what they should", %{client: client, store: store} do
      for {ask, type, payload, reply, result} <- [
            {&Xenstore.write(&1, "/a", ["v", ?1]), :write, "/a\0v1", "OK\0", :ok},
            {&Xenstore.mkdir(&1, "/a"), :mkdir, "/a\0", "OK\0", :ok},
            {&Xenstore.rm(&1, "/a"), :rm, "/a\0", "OK\0", :ok},
            {&Xenstore.directory(&1, "/a"), :directory, "/a\0", "x\0y\0", {:ok, ["x", "y"]}},
            {&Xenstore.get_perms(&1, "/a"), :get_perms, "/a\0", "n5\0r7\0", {:ok, [n: 5, r: 7]}},
            {&Xenstore.set_perms(&1, "/a", n: 5), :set_perms, "/a\0n5\0", "OK\0", :ok},
            {&Xenstore.domain_path(&1, 5), :get_domain_path, "5\0", "/d/5\0", {:ok, "/d/5"}}
          ] do
        task = async(fn -> ask.(client) end)
        assert answer(store, type, reply) == {0, payload}
        assert Task.await(task) == result
      end
    end

    test "get the store's error, known or not", %{client: client, store: store} do
      for {name, reason} <- [
            {"ENOENT", :enoent},
            {"EQUOTA", :equota},
            {"EWHATEVER", {:xenstore, "EWHATEVER"}}
          ] do
        task = async(fn -> Xenstore.read(client, "/a") end)
        refuse(store, :read, name)
        assert Task.await(task) == {:error, reason}
      end
    end

    test "that make no sense or are too long are not sent", %{client: client, store: store} do
      assert Xenstore.read(client, "/a//b") == {:error, :einval}
      assert Xenstore.read(client, "/a\0b") == {:error, :einval}
      assert Xenstore.set_perms(client, "/a", []) == {:error, :einval}
      assert Xenstore.write(client, "/a", String.duplicate("x", 4094)) == {:error, :e2big}
      assert silent?(store)

      # Exactly as long as may be.
      task = async(fn -> Xenstore.write(client, "/a", String.duplicate("x", 4093)) end)
      assert {0, payload} = answer(store, :write)
      assert byte_size(payload) == 4096
      assert Task.await(task) == :ok
    end

    test "that are not answered end in time, and late replies are nobody's", %{
      client: client,
      store: store
    } do
      assert Xenstore.read(client, "/a", timeout: 20) == {:error, :timeout}
      {late, 0, "/a\0"} = request(store, :read, 1_000)

      task = async(fn -> Xenstore.read(client, "/b") end)
      say(store, :read, late, "too late")
      answer(store, :read, "b")
      assert Task.await(task) == {:ok, "b"}
      refute_received _anything
      assert %{in_flight: 0, jobs: 0, queued: 0} = Client.info(client)
    end

    test "that the store does not get to are given up in the queue", %{
      client: client,
      store: store
    } do
      {window, _transactions} = Xenstore.Pipeline.limits()
      hanging = for n <- 1..window, do: async(fn -> Xenstore.read(client, "/#{n}") end)
      ids = for _ <- 1..window, do: elem(request(store, :read, 1_000), 0)

      assert Xenstore.write(client, "/late", "v", timeout: 20) == {:error, :timeout}
      assert silent?(store)
      task = async(fn -> Xenstore.read(client, "/next") end)
      for id <- ids, do: say(store, :read, id, "v")
      # The write was never sent.
      assert answer(store, :read, "v") == {0, "/next\0"}
      assert Task.await(task) == {:ok, "v"}
      for {:ok, "v"} <- Task.await_many(hanging), do: :ok
    end

    test "need a limit and options that exist", %{client: client} do
      for opts <- [[timeout: -1], [timeout: :infinity], [timeout: 1.5], [limit: 1]] do
        assert_raise ArgumentError, ~r/timeout: milliseconds/, fn ->
          Xenstore.read(client, "/a", opts)
        end
      end

      assert_raise ArgumentError, ~r/:tries must be/, fn ->
        Xenstore.transaction(client, [], tries: 0)
      end
    end

    test "without waiting come back as messages", %{client: client, store: store} do
      assert Xenstore.request(client, :one, {:read, "/a"}) == :ok
      assert Xenstore.request(client, :two, {:read, "no//path"}) == :ok
      assert_receive {:xenstore, :two, {:error, :einval}}
      answer(store, :read, "v")
      assert_receive {:xenstore, :one, {:ok, "v"}}

      assert Xenstore.request(client, :three, {:write, "/a", "v"}, timeout: 10) == :ok
      assert_receive {:xenstore, :three, {:error, :timeout}}
    end

    test "reach the store in the order in which they were made", %{client: client, store: store} do
      for n <- 1..40, do: Xenstore.request(client, n, {:write, "/#{n}", ""})

      for n <- 1..40 do
        path = "/#{n}\0"
        assert {0, ^path} = answer(store, :write)
      end
    end
  end

  describe "a list transaction" do
    test "is started, done and committed", %{client: client, store: store} do
      Xenstore.request(client, :ref, {:transaction, [{:write, "/a", "1"}, {:read, "/b"}]})
      assert answer(store, :transaction_start, "77\0") == {0, "\0"}
      assert answer(store, :write) == {77, "/a\0" <> "1"}
      assert answer(store, :read, "b") == {77, "/b\0"}
      assert answer(store, :transaction_end) == {77, "T\0"}
      assert_receive {:xenstore, :ref, {:ok, [:ok, {:ok, "b"}]}}
    end

    test "is tried again after EAGAIN, with its own limit of tries", %{
      client: client,
      store: store
    } do
      task = async(fn -> Xenstore.transaction(client, [{:write, "/a", "1"}], tries: 3) end)

      for id <- 1..3 do
        answer(store, :transaction_start, "#{id}\0")
        assert {^id, _} = answer(store, :write)
        assert {^id, "T\0"} = refuse(store, :transaction_end, "EAGAIN")
      end

      assert Task.await(task) == {:error, :eagain}
      assert silent?(store)
    end

    test "of twenty tries by default survives a storm", %{client: client, store: store} do
      task = async(fn -> Xenstore.transaction(client, [], timeout: 10_000) end)

      for id <- 1..19 do
        answer(store, :transaction_start, "#{id}\0")
        refuse(store, :transaction_end, "EAGAIN")
      end

      answer(store, :transaction_start, "20\0")
      answer(store, :transaction_end)
      assert Task.await(task) == {:ok, []}
    end

    test "is aborted by an error, also by one of our own", %{client: client, store: store} do
      task = async(fn -> Xenstore.transaction(client, [{:rm, "/a"}, {:read, "/b"}]) end)
      answer(store, :transaction_start, "5\0")
      refuse(store, :rm, "EACCES")
      assert answer(store, :transaction_end) == {5, "F\0"}
      assert Task.await(task) == {:error, :eacces}

      task =
        async(fn ->
          Xenstore.transaction(client, [{:write, "/a", String.duplicate("x", 5000)}])
        end)

      answer(store, :transaction_start, "6\0")
      assert answer(store, :transaction_end) == {6, "F\0"}
      assert Task.await(task) == {:error, :e2big}
    end

    test "that runs out of time is aborted", %{client: client, store: store} do
      Xenstore.request(client, :ref, {:transaction, [{:read, "/a"}]}, timeout: 50)
      answer(store, :transaction_start, "5\0")
      request(store, :read, 1_000)
      assert_receive {:xenstore, :ref, {:error, :timeout}}
      assert answer(store, :transaction_end) == {5, "F\0"}
    end

    test "whose start is answered too late is aborted", %{client: client, store: store} do
      Xenstore.request(client, :ref, {:transaction, [{:read, "/a"}]}, timeout: 10)
      {id, 0, _} = request(store, :transaction_start, 1_000)
      assert_receive {:xenstore, :ref, {:error, :timeout}}
      say(store, :transaction_start, id, "5\0")
      assert answer(store, :transaction_end) == {5, "F\0"}
    end
  end

  describe "a function's transaction" do
    test "commits what it returns", %{client: client, store: store} do
      task =
        async(fn ->
          Xenstore.transaction(client, fn tx ->
            with {:ok, value} <- Xenstore.read(tx, "/a"),
                 :ok <- Xenstore.perform(tx, {:write, "/b", value}),
                 do: {:ok, value}
          end)
        end)

      answer(store, :transaction_start, "9\0")
      assert answer(store, :read, "v") == {9, "/a\0"}
      assert answer(store, :write) == {9, "/b\0v"}
      assert answer(store, :transaction_end) == {9, "T\0"}
      assert Task.await(task) == {:ok, "v"}
    end

    test "is run again after EAGAIN", %{client: client, store: store} do
      test = self()

      task =
        async(fn ->
          Xenstore.transaction(
            client,
            fn _tx ->
              send(test, :ran)
              :ok
            end,
            tries: 2
          )
        end)

      for id <- 1..2 do
        answer(store, :transaction_start, "#{id}\0")
        assert_receive :ran
        refuse(store, :transaction_end, "EAGAIN")
      end

      assert Task.await(task) == {:error, :eagain}
      refute_received :ran
    end

    test "is aborted by an error, an exception, a throw, an exit, a wrong return", %{
      client: client,
      store: store
    } do
      for {fun, outcome} <- [
            {fn _ -> {:error, :mine} end, {:error, :mine}},
            {fn _ -> raise "mine" end, {:raised, "mine"}},
            {fn _ -> throw(:mine) end, {:caught, :throw, :mine}},
            {fn _ -> exit(:mine) end, {:caught, :exit, :mine}},
            {fn _ -> :what end, :wrong}
          ] do
        task =
          async(fn ->
            try do
              Xenstore.transaction(client, fun)
            rescue
              error in ArgumentError -> if error.message =~ "got: :what", do: :wrong
              error -> {:raised, Exception.message(error)}
            catch
              kind, reason -> {:caught, kind, reason}
            end
          end)

        answer(store, :transaction_start, "3\0")
        assert answer(store, :transaction_end) == {3, "F\0"}
        assert Task.await(task) == outcome
      end
    end

    test "is aborted when its process is killed", %{client: client, store: store} do
      test = self()

      pid =
        spawn(fn ->
          Xenstore.transaction(client, fn _tx ->
            send(test, :inside)
            Process.sleep(:infinity)
          end)
        end)

      answer(store, :transaction_start, "4\0")
      assert_receive :inside
      Process.exit(pid, :kill)
      assert answer(store, :transaction_end) == {4, "F\0"}
      true!(fn -> match?(%{transactions: 0, open: 0, in_flight: 0}, Client.info(client)) end)
    end

    test "whose process is killed before it has begun is aborted", %{client: client, store: store} do
      pid = spawn(fn -> Xenstore.transaction(client, fn _tx -> :ok end) end)
      {id, 0, _} = request(store, :transaction_start, 1_000)
      monitor = Process.monitor(pid)
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^monitor, _, _, _}
      say(store, :transaction_start, id, "4\0")
      assert answer(store, :transaction_end) == {4, "F\0"}
    end

    test "that takes too long is aborted, and its handle is of no more use", %{
      client: client,
      store: store
    } do
      task =
        async(fn ->
          Xenstore.transaction(
            client,
            fn tx ->
              receive do: (:go -> Xenstore.read(tx, "/a"))
            end,
            timeout: 30
          )
        end)

      answer(store, :transaction_start, "4\0")
      assert answer(store, :transaction_end) == {4, "F\0"}
      send(task.pid, :go)
      assert Task.await(task) == {:error, :closed}
      assert silent?(store)
    end
  end

  describe "a watch" do
    test "is shared, filtered by interest, and taken back with its last subscriber", %{
      client: client,
      store: store
    } do
      Xenstore.request(client, :w1, {:watch, "/d", "/d/5", :five})
      {0, registration} = answer(store, :watch)
      ["/d", wire, ""] = String.split(registration, "\0")
      assert_receive {:xenstore, :w1, :ok}
      refute_received {:xenstore_watch, _, _}
      :gen_tcp.send(store, watch_event("/d", wire))
      assert_receive {:xenstore_watch, :five, "/d"}

      # The second one costs the store nothing, and has a first event too.
      assert Xenstore.watch(client, "/d", "/d/7", {:any, "term"}) == :ok
      assert_receive {:xenstore_watch, {:any, "term"}, "/d"}
      Xenstore.ack(client, :five)
      Xenstore.ack(client, {:any, "term"})

      :gen_tcp.send(store, watch_event("/d/7/x", wire) <> watch_event("/d/5", wire))
      assert_receive {:xenstore_watch, {:any, "term"}, "/d/7/x"}
      assert_receive {:xenstore_watch, :five, "/d/5"}

      assert Xenstore.unwatch(client, :five) == :ok
      assert silent?(store)
      assert Xenstore.unwatch(client, {:any, "term"}) == :ok
      assert {0, ^registration} = answer(store, :unwatch)
      assert Xenstore.unwatch(client, :five) == {:error, :enoent}
      assert %{watches: 0, monitors: 0} = Client.info(client)
    end

    test "ends with its subscriber", %{client: client, store: store} do
      pid =
        spawn(fn ->
          Xenstore.watch(client, "/d", "/d", :a)
          Xenstore.watch(client, "/d", "/d", :b)
          Process.sleep(:infinity)
        end)

      answer(store, :watch)
      true!(fn -> Client.info(client).jobs == 0 end)
      Process.exit(pid, :kill)
      assert {0, "/d\0" <> _} = answer(store, :unwatch)
      assert %{watches: 0, monitors: 0, jobs: 0} = Client.info(client)
    end

    test "that the store has already is as good", %{client: client, store: store} do
      task = async(fn -> {Xenstore.watch(client, "/d", "/d", :a), next_message()} end)
      refuse(store, :watch, "EEXIST")
      assert Task.await(task) == {:ok, {:xenstore_watch, :a, "/d"}}
    end

    test "that the store refuses is refused to all who wait for it", %{
      client: client,
      store: store
    } do
      Xenstore.request(client, :w1, {:watch, "/d", "/d", :a})
      Xenstore.request(client, :w2, {:watch, "/d", "/d/x", :b})
      refuse(store, :watch, "ENOSPC")
      assert_receive {:xenstore, :w1, {:error, :enospc}}
      assert_receive {:xenstore, :w2, {:error, :enospc}}
      assert %{watches: 0, monitors: 0, jobs: 0} = Client.info(client)
      assert silent?(store)
    end

    test "that is not confirmed in time is taken back", %{client: client, store: store} do
      assert Xenstore.watch(client, "/d", "/d", :a, timeout: 10) == {:error, :timeout}
      {id, 0, registration} = request(store, :watch, 1_000)
      {_, 0, ^registration} = request(store, :unwatch, 1_000)
      say(store, :watch, id, "OK\0")
      assert %{watches: 0, monitors: 0} = Client.info(client)
    end

    test "needs a path and an interest that go together", %{client: client, store: store} do
      for {path, interest} <- [{"/a", "/b"}, {"a", "a"}, {"/a/", "/a/"}, {"/a", nil}, {:a, "/a"}] do
        assert Xenstore.watch(client, path, interest, :t) == {:error, :einval}
      end

      Xenstore.request(client, :w, {:watch, "/a", "/a", :t})
      answer(store, :watch)
      assert_receive {:xenstore, :w, :ok}
      assert Xenstore.watch(client, "/a", "/a", :t) == {:error, :eexist}
    end

    test "in a storm costs its subscriber one message, and the client no more than it may", %{
      client: client,
      store: store
    } do
      Xenstore.request(client, :w, {:watch, "/local/domain", "/local/domain", :t})
      {0, registration} = answer(store, :watch)
      ["/local/domain", wire, ""] = String.split(registration, "\0")
      assert_receive {:xenstore, :w, :ok}
      :gen_tcp.send(store, watch_event("/local/domain", wire))
      assert_receive {:xenstore_watch, :t, "/local/domain"}
      {:memory, before} = Process.info(client, :memory)

      # A hostile domain 7, and one honest knock of domain 5 in the middle of it.
      storm = fn n ->
        for i <- 1..50_000, into: "", do: watch_event("/local/domain/7/data/#{n}x#{i}", wire)
      end

      :ok = :gen_tcp.send(store, storm.(1))
      :ok = :gen_tcp.send(store, watch_event("/local/domain/5/data/nock/1/0", wire))
      :ok = :gen_tcp.send(store, storm.(2))

      # All of it has been read once a later request is answered.
      task = async(fn -> Xenstore.read(client, "/a", timeout: 30_000) end)
      answer(store, :read, "v")
      assert {:ok, "v"} = Task.await(task, 30_000)

      assert Process.info(self(), :message_queue_len) == {:message_queue_len, 0}
      :erlang.garbage_collect(client)
      {:memory, later} = Process.info(client, :memory)
      assert later - before < 200_000

      told = drain(client, :t)
      assert Enum.sort(told) == ["/local/domain/5/data/nock/1/0", "/local/domain/7"]
    end
  end

  describe "the connection" do
    test "that ends tells everybody", %{client: client, store: store, monitor: monitor} do
      Xenstore.request(client, :w, {:watch, "/a", "/a", :t})
      answer(store, :watch)
      assert_receive {:xenstore, :w, :ok}
      waiting = async(fn -> Xenstore.read(client, "/a") end)
      Xenstore.request(client, :async, {:read, "/b"})

      in_transaction =
        async(fn -> Xenstore.transaction(client, fn tx -> Xenstore.read(tx, "/a") end) end)

      for _ <- 1..3, do: request(store)

      :gen_tcp.close(store)
      assert Task.await(waiting) == {:error, :store_lost}
      assert Task.await(in_transaction) == {:error, :store_lost}
      assert_receive {:xenstore, :async, {:error, :store_lost}}
      assert_receive {:xenstore_lost, ^client}
      assert_receive {:DOWN, ^monitor, _, _, {:shutdown, {:store_lost, _}}}

      assert Xenstore.read(client, "/a") == {:error, :store_lost}
      assert Xenstore.watch(client, "/a", "/a", :t) == {:error, :store_lost}
      Xenstore.request(client, :late, {:read, "/b"})
      assert_receive {:xenstore, :late, {:error, :store_lost}}
    end

    test "that ends in the middle of a reply loses it", %{client: client, store: store} do
      task = async(fn -> Xenstore.read(client, "/a") end)
      {id, 0, _} = request(store, :read, 1_000)
      :gen_tcp.send(store, binary_part(packet(:read, id, "value"), 0, 18))
      :gen_tcp.close(store)
      assert Task.await(task) == {:error, :store_lost}
    end

    test "is closed at the first thing that makes no sense", %{
      client: client,
      store: store,
      monitor: monitor
    } do
      task = async(fn -> Xenstore.read(client, "/a") end)
      request(store)
      :gen_tcp.send(store, <<2::32-native, 1::32-native, 0::32-native, 0xFFFFFF::32-native>>)
      assert Task.await(task) == {:error, :store_lost}
      assert_receive {:DOWN, ^monitor, _, _, {:shutdown, {:protocol, text}}}
      assert text =~ "#{0xFFFFFF}"
      assert :gen_tcp.recv(store, 1, 1_000) == {:error, :closed}
    end

    test "is closed by a reply to nothing", %{store: store, monitor: monitor} do
      say(store, :read, 99, "v")
      assert_receive {:DOWN, ^monitor, _, _, {:shutdown, {:protocol, _}}}
    end

    test "survives any garbage without a crash", %{} do
      for seed <- 1..30 do
        {client, store} = start()
        monitor = Process.monitor(client)
        # It has the monitor for certain once it has answered.
        %{} = Client.info(client)
        :rand.seed(:exsss, seed)
        :gen_tcp.send(store, :rand.bytes(200))
        :gen_tcp.close(store)
        assert_receive {:DOWN, ^monitor, _, _, {:shutdown, _}}
      end
    end

    test "is told to nobody who has no subscription left", %{
      client: client,
      store: store,
      monitor: monitor
    } do
      Xenstore.request(client, :w, {:watch, "/a", "/a", :t})
      answer(store, :watch)
      assert_receive {:xenstore, :w, :ok}
      Xenstore.unwatch(client, :t)
      :gen_tcp.close(store)
      assert_receive {:DOWN, ^monitor, _, _, _}
      refute_received {:xenstore_lost, _}
    end

    test "that takes nothing for a while is tried again, and nothing is sent twice" do
      {client, store} = start(Busy)
      for n <- 1..5, do: Xenstore.request(client, n, {:write, "/#{n}", ""})

      for n <- 1..5 do
        path = "/#{n}\0"
        assert {0, ^path} = answer(store, :write)
        assert_receive {:xenstore, ^n, :ok}
      end

      assert silent?(store)
      Process.exit(client, :kill)
    end

    test "to the device has room for the header in its 4096 bytes" do
      assert Tube.Xenstore.Stream.max_payload({:port, :socket}) == 4096
      assert Tube.Xenstore.Stream.max_payload({:port, :device}) == 4080
    end

    test "cannot be made to nothing" do
      Process.flag(:trap_exit, true)

      assert {:error, {:shutdown, :enoent}} =
               Client.start_link({Tube.Test.FakeStore.Socket, "/nonexistent/socket"})
    end
  end

  defp next_message do
    receive do
      message -> message
    after
      5_000 -> :nothing
    end
  end

  # All that a subscriber is told when it acknowledges each event.
  defp drain(client, token) do
    Xenstore.ack(client, token)
    # The call comes after the acknowledgement, so its answer comes after an event.
    Client.info(client)

    receive do
      {:xenstore_watch, ^token, path} -> [path | drain(client, token)]
    after
      0 -> []
    end
  end
end
