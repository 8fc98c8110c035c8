defmodule Tube.TwoVMs.OpenTest do
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir

  setup :fresh_run_dir

  setup %{run_dir: run_dir} do
    %{tip: VM.start!(run_dir: run_dir, domid: 5), nock: VM.start!(run_dir: run_dir, domid: 7)}
  end

  test "each VM is the domain of its settings", %{tip: tip, nock: nock} do
    assert VM.run(tip, fn -> Tube.domid() end) == {:ok, 5}
    assert VM.run(nock, fn -> Tube.domid() end) == {:ok, 7}
  end

  test "accept first, then open", %{tip: tip, nock: nock} do
    VM.run(tip, fn ->
      {:ok, listener} = Tube.listen(active: false, timeout: 20_000)
      Process.put(:l, listener)
    end)

    accepting = VM.async(tip, fn -> Tube.accept(Process.get(:l), 10_000) end)
    assert {:ok, theirs} = VM.run(nock, fn -> Tube.open(5, active: false, timeout: 20_000) end)
    assert {:ok, ours} = Task.await(accepting, 30_000)
    assert_talk(tip, ours, nock, theirs)
  end

  test "open first, then listen and accept", %{tip: tip, nock: nock} do
    # The tip attaches, so that its domain exists, but does not listen yet.
    {:ok, 5} = VM.run(tip, fn -> Tube.domid() end)
    opening = VM.async(nock, fn -> Tube.open(5, active: false, timeout: 20_000) end)

    # Wait until the nock waits for a listener, so that it is first.
    VM.run(nock, fn -> await_connection() end, as: :checker)

    {:ok, ours} =
      VM.run(tip, fn ->
        {:ok, listener} = Tube.listen(active: false, timeout: 20_000)
        Tube.accept(listener, 10_000)
      end)

    assert {:ok, theirs} = Task.await(opening, 30_000)
    assert_talk(tip, ours, nock, theirs)
  end

  test "open before the other domain even exists", %{run_dir: run_dir, nock: nock} do
    # Long enough to start a VM in the meantime.
    limit = Tube.Test.Lab.timeout(25_000)

    opening =
      VM.async(nock, fn -> Tube.open(9, active: false, timeout: limit) end, timeout: 2 * limit)

    VM.run(nock, fn -> await_connection() end, as: :checker)
    tip = VM.start!(run_dir: run_dir, domid: 9)

    {:ok, ours} =
      VM.run(tip, fn ->
        {:ok, listener} = Tube.listen(active: false, timeout: 20_000)
        Tube.accept(listener, 10_000)
      end)

    assert {:ok, theirs} = Task.await(opening, 2 * limit)
    assert_talk(tip, ours, nock, theirs)
  end

  test "both open to each other at once: two tubes", %{tip: five, nock: seven} do
    both = fn peer ->
      fn ->
        {:ok, listener} = Tube.listen(active: false, timeout: 20_000)
        opening = Task.async(fn -> give_back(Tube.open(peer, active: false, timeout: 15_000)) end)
        {:ok, accepted} = Tube.accept(listener, 15_000)
        {:ok, opened} = Task.await(opening, 20_000) |> take()
        :ok = Tube.send(opened, "from #{peer}'s peer")
        {:ok, message} = Tube.recv(accepted, 5_000)
        {message, length(Tube.list())}
      end
    end

    a = VM.async(five, both.(7))
    b = VM.async(seven, both.(5))
    assert {"from 5's peer", 2} = Task.await(a, 40_000)
    assert {"from 7's peer", 2} = Task.await(b, 40_000)
  end

  # With oxenstored all nodes of the tip's half belong to the tip, whose quota of 1000 allows 87
  # tubes.
  @many if System.get_env("TUBE_TEST_STORE") == "oxenstored", do: 80, else: 100
  @tag timeout: 300_000
  test "a hundred tubes between one pair, all in use at once", %{tip: tip, nock: nock} do
    serving =
      VM.async(
        tip,
        fn ->
          {:ok, listener} = Tube.listen(active: false, ring: 4096, timeout: 20_000)

          tubes =
            for _ <- 1..@many do
              {:ok, tube} = Tube.accept(listener, 20_000)
              tube
            end

          for tube <- tubes do
            {:ok, text} = Tube.recv(tube, 20_000)
            :ok = Tube.send(tube, [text, " back"])
          end

          length(Tube.list())
        end,
        timeout: 100_000
      )

    replies =
      VM.run(
        nock,
        fn ->
          tubes =
            for n <- 1..@many do
              {:ok, tube} = Tube.open(5, active: false, ring: 4096, timeout: 20_000)
              {n, tube}
            end

          for {n, tube} <- tubes, do: :ok = Tube.send(tube, "#{n}")
          for {n, tube} <- tubes, do: {n, Tube.recv(tube, 20_000)}
        end,
        timeout: 100_000
      )

    assert Task.await(serving, 100_000) == @many
    for {n, reply} <- replies, do: assert(reply == {:ok, "#{n} back"})
  end

  test "tubes are numbered from 0, and a number in use is refused", %{tip: tip, nock: nock} do
    VM.run(tip, fn -> {:ok, _} = Tube.listen(active: false, timeout: 20_000) end)

    VM.run(nock, fn ->
      {:ok, first} = Tube.open(5, timeout: 20_000)
      {:ok, second} = Tube.open(5, timeout: 20_000)
      assert {:ok, %{tid: 0, role: :nock, peer: 5}} = Tube.info(first)
      assert {:ok, %{tid: 1}} = Tube.info(second)
      assert {:error, :eexist} = Tube.open(5, tid: 1)
      assert {:ok, ninth} = Tube.open(5, tid: 9, timeout: 20_000)
      assert {:ok, %{tid: 9}} = Tube.info(ninth)
    end)
  end

  test "nobody listens: a timeout, and nothing left in the store", %{
    run_dir: run_dir,
    nock: nock
  } do
    assert {:error, :timeout} = VM.run(nock, fn -> Tube.open(5, timeout: 300) end)
    refute store(run_dir) =~ "/nock/"
  end

  test "a peer that is not on the list never gets a tube", %{tip: tip, nock: nock} do
    VM.run(tip, fn -> {:ok, _} = Tube.listen(peers: [6]) end)
    assert {:error, :timeout} = VM.run(nock, fn -> Tube.open(5, timeout: 500) end)
    assert VM.run(tip, fn -> Tube.list() end) == []
  end

  test "the store shows the tube as documented", %{run_dir: run_dir, tip: tip, nock: nock} do
    VM.run(tip, fn -> {:ok, _} = Tube.listen(service: "echo", timeout: 20_000) end)
    VM.run(nock, fn -> {:ok, _} = Tube.open(5, service: "echo", timeout: 20_000) end)
    store = store(run_dir)

    for {path, perms} <- [
          {"/local/domain/5/data/tube", "n?r5"},
          {"/local/domain/5/data/tube/echo", ""},
          {"/local/domain/5/data/tip/7", "(n5,b5,b7)"},
          {"/local/domain/5/data/tip/7/0/state = \"4\"", ""},
          {"/local/domain/5/data/tip/7/0/tx-ring-ref = ", ""},
          {"/local/domain/5/data/tip/7/0/rx-ring-ref = ", ""},
          {"/local/domain/5/data/tip/7/0/event-channel = ", ""},
          {"/local/domain/5/data/tip/7/0/tx-ring-bytes = \"65536\"", "(n5,b5,b7)"},
          {"/local/domain/5/data/tip/7/0/rx-ring-bytes = \"65536\"", ""},
          {"/local/domain/5/data/tip/7/0/opened = ", ""},
          {"/local/domain/5/data/tip/7/0/nock = \"/local/domain/7/data/nock/5/0\"", ""},
          {"/local/domain/7/data/nock/5/0/tip = \"/local/domain/5/data/tip/7/0\"", "(n7,r5)"},
          {"/local/domain/7/data/nock/5/0/state = \"4\"", "(n7,r5)"},
          {"/local/domain/7/data/nock/5/0/service = \"echo\"", "(n7,r5)"}
        ] do
      line = store |> String.split("\n") |> Enum.find(&String.starts_with?(&1, path))
      assert line, "#{path} is not in the store:\n#{store}"
      unless perms in ["", "n?r5"], do: assert(line =~ perms)
    end

    # None of these nodes may be world-writable.
    for line <- String.split(store, "\n"), line =~ ~r"/data/(tube|tip|nock)" do
      refute line =~ ~r/\([wb]\d/, "world-writable: #{line}"
    end
  end

  # The nodes in the store, according to the independent client xenstore-ls.
  defp store(run_dir) do
    env = [{"XENSTORED_PATH", Path.join(run_dir, "dom0/xenstored.sock")}]
    {text, 0} = System.cmd("xenstore-ls", ["-fp"], env: env)
    text
  end

  def assert_talk(one, tube_one, other, tube_other) do
    VM.run(one, fn -> :ok = Tube.send(tube_one, "ping") end)
    assert VM.run(other, fn -> Tube.recv(tube_other, 5_000) end) == {:ok, "ping"}
    VM.run(other, fn -> :ok = Tube.send(tube_other, "pong") end)
    assert VM.run(one, fn -> Tube.recv(tube_one, 5_000) end) == {:ok, "pong"}
  end

  # A connection process exists as soon as an open is in progress.
  def await_connection do
    Tube.Test.Eventually.true!(fn ->
      DynamicSupervisor.count_children(Tube.Connections).active > 0
    end)
  end

  # A tube opened in a task belongs to the task, which hands it to its parent before it ends.
  def give_back({:ok, tube}) do
    [parent | _] = Process.get(:"$callers")
    :ok = Tube.controlling_process(tube, parent)
    {:ok, tube}
  end

  def give_back(error), do: error
  def take(result), do: result
end
