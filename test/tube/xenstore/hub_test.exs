defmodule Tube.Xenstore.HubTest do
  # The client through the driver's stream, against the hub's store: two ordinary domains and dom0.
  # Not async: it counts the streams of this VM.
  use ExUnit.Case

  import Tube.Test.{Eventually, RunDir, StoreCounts}

  alias Tube.{Domain, Xenstore}
  alias Tube.Xenstore.Client

  setup :fresh_run_dir

  setup %{run_dir: run_dir} do
    for domid <- [0, 1, 2], into: %{} do
      name = :"#{__MODULE__}.#{domid}.#{System.unique_integer([:positive])}"
      start_supervised!({Domain.Server, name: name}, id: domid)
      {:ok, domain} = Domain.attach(name, run_dir: run_dir, domid: domid)
      {[:dom0, :one, :two] |> Enum.at(domid), domain.store}
    end
  end

  @data "/local/domain/1/data"

  test "values of every byte and length", %{one: one} do
    # A guest's node may have 2048 bytes, with its name and permissions.
    for value <- ["", "v", <<0, 255, 0>>, String.duplicate("x", 1900)] do
      assert Xenstore.write(one, @data <> "/v", value) == :ok
      assert Xenstore.read(one, @data <> "/v") == {:ok, value}
    end

    assert Xenstore.write(one, @data <> "/v", String.duplicate("x", 4096)) == {:error, :e2big}
    assert Xenstore.read(one, @data <> "/v") == {:ok, String.duplicate("x", 1900)}
  end

  test "nodes come and go", %{one: one} do
    assert Xenstore.read(one, @data <> "/a") == {:error, :enoent}
    assert Xenstore.perform(one, {:mkdir, @data <> "/a/b/c"}) == :ok
    assert Xenstore.read(one, @data <> "/a/b") == {:ok, ""}
    assert Xenstore.directory(one, @data <> "/a") == {:ok, ["b"]}
    assert Xenstore.rm(one, @data <> "/a") == :ok
    assert Xenstore.directory(one, @data <> "/a/b") == {:error, :enoent}
  end

  test "a directory of more than one reply", %{dom0: dom0} do
    names = for n <- 1..300, do: "a-name-long-enough-#{n}"
    for name <- names, do: :ok = Xenstore.perform(dom0, {:mkdir, "/test/#{name}"})
    assert {:ok, found} = Xenstore.directory(dom0, "/test")
    assert Enum.sort(found) == Enum.sort(names)
  end

  test "permissions of one domain keep another one out", %{one: one, two: two} do
    :ok = Xenstore.write(one, @data <> "/v", "1")
    assert Xenstore.perform(one, {:get_perms, @data <> "/v"}) == {:ok, [n: 1]}
    assert Xenstore.read(two, @data <> "/v") == {:error, :eacces}
    assert Xenstore.perform(one, {:set_perms, @data <> "/v", [n: 1, r: 2]}) == :ok
    assert Xenstore.read(two, @data <> "/v") == {:ok, "1"}
    assert Xenstore.write(two, @data <> "/v", "2") == {:error, :eacces}
    assert {:error, reason} = Xenstore.perform(two, {:set_perms, @data <> "/v", [n: 2]})
    assert reason in [:eacces, :eperm]
  end

  test "watches report another domain's changes, once at the start, merged until acknowledged", %{
    one: one,
    two: two
  } do
    :ok = Xenstore.perform(one, {:set_perms, @data, [n: 1, b: 2]})
    :ok = Xenstore.watch(two, @data, @data, :all)
    assert_receive {:xenstore_watch, :all, @data}, 5_000
    :ok = Xenstore.watch(two, @data, @data <> "/x", :x)
    assert_receive {:xenstore_watch, :x, @data}, 5_000
    Xenstore.ack(two, :all)
    Xenstore.ack(two, :x)
    # One for both, besides that of the domain itself.
    assert %{watches: 2} = counts(two)

    for n <- 1..50, do: :ok = Xenstore.write(one, @data <> "/y", "#{n}")
    :ok = Xenstore.write(one, @data <> "/x/1", "")
    assert_receive {:xenstore_watch, :x, @data <> "/x/1"}, 5_000
    assert_receive {:xenstore_watch, :all, @data <> "/y"}, 5_000
    refute_received {:xenstore_watch, _, _}
    Xenstore.ack(two, :all)
    assert_receive {:xenstore_watch, :all, first}, 5_000
    Xenstore.ack(two, :all)
    assert_receive {:xenstore_watch, :all, second}, 5_000
    assert Enum.sort([first, second]) == [@data <> "/x/1", @data <> "/y"]

    assert Xenstore.unwatch(two, :all) == :ok
    assert Xenstore.unwatch(two, :x) == :ok
    :ok = Xenstore.write(one, @data <> "/x/1", "again")
    assert {:ok, _} = Xenstore.read(two, @data <> "/x/1")
    refute_received {:xenstore_watch, _, _}
  end

  test "transactions on the same node are done one after another", %{one: one, two: two} do
    counter = @data <> "/counter"
    :ok = Xenstore.write(one, counter, "0")
    :ok = Xenstore.perform(one, {:set_perms, counter, [n: 1, b: 2]})

    tasks =
      for store <- [one, two, one, two] do
        Task.async(fn ->
          for _ <- 1..25 do
            :ok =
              Xenstore.transaction(
                store,
                fn tx ->
                  with {:ok, value} <- Xenstore.read(tx, counter),
                       do: Xenstore.write(tx, counter, "#{String.to_integer(value) + 1}")
                end,
                tries: 100,
                timeout: 20_000
              )
          end
        end)
      end

    Task.await_many(tasks, 60_000)
    assert Xenstore.read(one, counter) == {:ok, "100"}
  end

  test "a transaction is visible as a whole or not at all", %{one: one, two: two} do
    :ok = Xenstore.perform(one, {:set_perms, @data, [n: 1, r: 2]})

    ops = [
      {:write, @data <> "/a", "1"},
      {:set_perms, @data <> "/a", [n: 1, r: 2]},
      {:read, "/local/domain/2/data/x"}
    ]

    assert Xenstore.transaction(one, ops) == {:error, :eacces}
    assert Xenstore.read(one, @data <> "/a") == {:error, :enoent}

    assert Xenstore.transaction(one, Enum.take(ops, 2) ++ [{:read, @data <> "/a"}]) ==
             {:ok, [:ok, :ok, {:ok, "1"}]}

    assert Xenstore.read(two, @data <> "/a") == {:ok, "1"}
  end

  test "failed transactions do not stay open", %{one: one} do
    for n <- 1..30 do
      {pid, monitor} =
        spawn_monitor(fn ->
          Xenstore.transaction(one, fn tx ->
            :ok = Xenstore.write(tx, @data <> "/t", "#{n}")
            if rem(n, 2) == 0, do: exit(:mine), else: Process.exit(self(), :kill)
          end)
        end)

      assert_receive {:DOWN, ^monitor, :process, ^pid, _reason}, 5_000
    end

    true!(fn -> match?(%{open: 0, transactions: 0}, counts(one)) end)
    assert Xenstore.transaction(one, [{:write, @data <> "/t", "last"}]) == {:ok, [:ok]}
    assert Xenstore.read(one, @data <> "/t") == {:ok, "last"}
  end

  test "a hundred callers at once", %{one: one} do
    tasks =
      for n <- 1..100 do
        Task.async(fn ->
          :ok = Xenstore.write(one, "#{@data}/#{n}", "#{n}")
          {:ok, value} = Xenstore.read(one, "#{@data}/#{n}")
          String.to_integer(value)
        end)
      end

    assert tasks |> Task.await_many(20_000) |> Enum.sum() == 5050
  end

  test "a stream that does not exist cannot be opened" do
    Process.flag(:trap_exit, true)

    assert {:error, {:shutdown, _}} =
             Client.start_link({Tube.Xenstore.Stream, {0xFFFFFF, :socket}})
  end

  test "a stopped client releases its descriptor and its watches", %{
    one: one,
    two: two
  } do
    :ok = Xenstore.watch(one, @data, @data, :mine)
    streams = Tube.Native.live_counts().streams
    GenServer.stop(one, :shutdown)
    assert_receive {:xenstore_lost, ^one}, 5_000
    true!(fn -> Tube.Native.live_counts().streams <= streams - 1 end)
    assert {:ok, _} = Xenstore.read(two, "domid")
  end
end
