defmodule Tube.Xenstore.TransactionTest do
  use ExUnit.Case, async: true

  import Tube.Test.FakeStore
  import Tube.Test.Eventually
  import Tube.Test.StoreCounts

  alias Tube.Xenstore

  setup :connected

  describe "a list transaction" do
    test "is started, done and committed", %{client: client, store: store} do
      Xenstore.request(client, :ref, {:transaction, [{:write, "/a", "1"}, {:read, "/b"}]})
      assert reply(store, :transaction_start, "77\0") == {0, "\0"}
      assert reply(store, :write) == {77, "/a\0" <> "1"}
      assert reply(store, :read, "b") == {77, "/b\0"}
      assert reply(store, :transaction_end) == {77, "T\0"}
      assert_receive {:xenstore, :ref, {:ok, [:ok, {:ok, "b"}]}}, 5_000
    end

    test "is retried after EAGAIN, with its own limit of tries", %{
      client: client,
      store: store
    } do
      task = Task.async(fn -> Xenstore.transaction(client, [{:write, "/a", "1"}], tries: 3) end)

      for id <- 1..3 do
        reply(store, :transaction_start, "#{id}\0")
        assert {^id, _} = reply(store, :write)
        assert {^id, "T\0"} = refuse(store, :transaction_end, "EAGAIN")
      end

      assert Task.await(task) == {:error, :eagain}
      assert silent?(store)
    end

    test "with the default of twenty tries survives a storm", %{client: client, store: store} do
      task = Task.async(fn -> Xenstore.transaction(client, [], timeout: 10_000) end)

      for id <- 1..19 do
        reply(store, :transaction_start, "#{id}\0")
        refuse(store, :transaction_end, "EAGAIN")
      end

      reply(store, :transaction_start, "20\0")
      reply(store, :transaction_end)
      assert Task.await(task) == {:ok, []}
    end

    test "is aborted by an error, also by one of our own", %{client: client, store: store} do
      task = Task.async(fn -> Xenstore.transaction(client, [{:rm, "/a"}, {:read, "/b"}]) end)
      reply(store, :transaction_start, "5\0")
      refuse(store, :rm, "EACCES")
      assert reply(store, :transaction_end) == {5, "F\0"}
      assert Task.await(task) == {:error, :eacces}

      task =
        Task.async(fn ->
          Xenstore.transaction(client, [{:write, "/a", String.duplicate("x", 5000)}])
        end)

      reply(store, :transaction_start, "6\0")
      assert reply(store, :transaction_end) == {6, "F\0"}
      assert Task.await(task) == {:error, :e2big}
    end

    test "that runs out of time is aborted", %{client: client, store: store} do
      Xenstore.request(client, :ref, {:transaction, [{:read, "/a"}]}, timeout: 50)
      reply(store, :transaction_start, "5\0")
      request(store, :read, 1_000)
      assert_receive {:xenstore, :ref, {:error, :timeout}}, 5_000
      assert reply(store, :transaction_end) == {5, "F\0"}
    end

    test "whose start gets a late reply is aborted", %{client: client, store: store} do
      Xenstore.request(client, :ref, {:transaction, [{:read, "/a"}]}, timeout: 10)
      {id, 0, _} = request(store, :transaction_start, 1_000)
      assert_receive {:xenstore, :ref, {:error, :timeout}}, 5_000
      send_packet(store, :transaction_start, id, "5\0")
      assert reply(store, :transaction_end) == {5, "F\0"}
    end
  end

  describe "a function's transaction" do
    test "commits and returns its result", %{client: client, store: store} do
      task =
        Task.async(fn ->
          Xenstore.transaction(client, fn tx ->
            with {:ok, value} <- Xenstore.read(tx, "/a"),
                 :ok <- Xenstore.perform(tx, {:write, "/b", value}),
                 do: {:ok, value}
          end)
        end)

      reply(store, :transaction_start, "9\0")
      assert reply(store, :read, "v") == {9, "/a\0"}
      assert reply(store, :write) == {9, "/b\0v"}
      assert reply(store, :transaction_end) == {9, "T\0"}
      assert Task.await(task) == {:ok, "v"}
    end

    test "may do several operations at once, and gets all results in order", %{
      client: client,
      store: store
    } do
      ops = [{:read, "/a"}, {:write, "/b", "1"}, {:read, "/c"}]

      task =
        Task.async(fn ->
          Xenstore.transaction(client, &{:ok, Xenstore.perform_all(&1, ops)})
        end)

      reply(store, :transaction_start, "9\0")
      # All arrive before any has its reply.
      {read, 9, "/a\0"} = request(store, :read, 5_000)
      {write, 9, "/b\0" <> "1"} = request(store, :write, 5_000)
      {other, 9, "/c\0"} = request(store, :read, 5_000)
      send_packet(store, :read, other, "c", 9)
      send_packet(store, :error, write, "EACCES\0", 9)
      send_packet(store, :read, read, "a", 9)
      reply(store, :transaction_end)
      assert Task.await(task) == {:ok, [{:ok, "a"}, {:error, :eacces}, {:ok, "c"}]}
      assert %{groups: 0, jobs: 0} = counts(client)
    end

    test "that has ended does none of several operations", %{client: client, store: store} do
      task = Task.async(fn -> Xenstore.transaction(client, &{:ok, &1}) end)
      reply(store, :transaction_start, "9\0")
      reply(store, :transaction_end)
      {:ok, tx} = Task.await(task)
      ops = [{:read, "/a"}, {:read, "/b"}]
      assert Xenstore.perform_all(tx, ops) == [{:error, :closed}, {:error, :closed}]
      assert Xenstore.perform_all(tx, []) == []
      assert silent?(store)
    end

    test "whose store hangs gets a result for each of several operations, in time", %{
      client: client,
      store: store
    } do
      ops = [{:read, "/a"}, {:read, "/b"}]
      task = Task.async(fn -> Xenstore.perform_all(client, ops, timeout: 100) end)
      {first, 0, "/a\0"} = request(store, :read, 5_000)
      send_packet(store, :read, first, "a")
      assert Task.await(task) == [{:ok, "a"}, {:error, :timeout}]
      assert %{groups: 0, jobs: 0} = counts(client)

      task = Task.async(fn -> Xenstore.perform_all(client, ops) end)
      request(store, :read, 5_000)
      :gen_tcp.close(store)
      assert Task.await(task) == [{:error, :store_lost}, {:error, :store_lost}]
    end

    test "is run again after EAGAIN", %{client: client, store: store} do
      test = self()

      task =
        Task.async(fn ->
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
        reply(store, :transaction_start, "#{id}\0")
        assert_receive :ran, 5_000
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
          Task.async(fn ->
            try do
              Xenstore.transaction(client, fun)
            rescue
              error in ArgumentError -> if error.message =~ "got: :what", do: :wrong
              error -> {:raised, Exception.message(error)}
            catch
              kind, reason -> {:caught, kind, reason}
            end
          end)

        reply(store, :transaction_start, "3\0")
        assert reply(store, :transaction_end) == {3, "F\0"}
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

      reply(store, :transaction_start, "4\0")
      assert_receive :inside, 5_000
      Process.exit(pid, :kill)
      assert reply(store, :transaction_end) == {4, "F\0"}
      true!(fn -> match?(%{transactions: 0, open: 0, in_flight: 0}, counts(client)) end)
    end

    test "whose process is killed before it starts is aborted", %{client: client, store: store} do
      pid = spawn(fn -> Xenstore.transaction(client, fn _tx -> :ok end) end)
      {id, 0, _} = request(store, :transaction_start, 1_000)
      monitor = Process.monitor(pid)
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      send_packet(store, :transaction_start, id, "4\0")
      assert reply(store, :transaction_end) == {4, "F\0"}
    end

    test "that takes too long is aborted, and its handle is useless afterwards", %{
      client: client,
      store: store
    } do
      task =
        Task.async(fn ->
          Xenstore.transaction(
            client,
            fn tx ->
              receive do: (:go -> Xenstore.read(tx, "/a"))
            end,
            timeout: 30
          )
        end)

      reply(store, :transaction_start, "4\0")
      assert reply(store, :transaction_end) == {4, "F\0"}
      send(task.pid, :go)
      assert Task.await(task) == {:error, :timeout}
      assert silent?(store)
    end
  end
end
