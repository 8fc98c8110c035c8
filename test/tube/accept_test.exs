defmodule Tube.AcceptTest do
  # The queue of a listener: its order, its limits, and removal from it.
  use Tube.Test.OneVM, async: false

  test "tubes come in the order in which they were opened", %{vm: vm} do
    VM.run(vm, fn ->
      {:ok, listener} = Tube.listen(service: "queue", active: false)

      for tid <- [103, 101, 102],
          do: {:ok, _} = Tube.open(5, service: "queue", tid: tid, linger: 100)

      accepted =
        for _ <- 1..3 do
          {:ok, tube} = Tube.accept(listener, 1_000)
          {:ok, %{tid: tid}} = Tube.peer(tube)
          tid
        end

      assert accepted == [103, 101, 102]
    end)
  end

  test "a tube that ended while it waited is not handed out", %{vm: vm} do
    VM.run(vm, fn ->
      {:ok, listener} = Tube.listen(service: "left", active: false)
      {:ok, left} = Tube.open(5, service: "left", tid: 201, linger: 100)
      # The listener owns the tip's end until it is accepted.
      [tip] =
        for tube <- Tube.list(),
            tube != left,
            {:ok, %{tid: 201, service: "left"}} <- [Tube.peer(tube)],
            do: tube

      monitor = Process.monitor(tip.pid)
      :ok = Tube.close(left)
      assert_receive {:DOWN, ^monitor, :process, _pid, _reason}, 5_000

      {:ok, _stays} = Tube.open(5, service: "left", tid: 202, linger: 100)
      {:ok, tube} = Tube.accept(listener, 1_000)
      assert {:ok, %{tid: 202}} = Tube.peer(tube)
      assert {:error, :timeout} = Tube.accept(listener, 0)
    end)
  end

  test "a caller that gave up gets nothing, and the next one gets the tube", %{vm: vm} do
    VM.run(vm, fn ->
      {:ok, listener} = Tube.listen(service: "gave up", active: false)
      assert {:error, :timeout} = Tube.accept(listener, 20)
      gone = Task.async(fn -> Tube.accept(listener, 5_000) end)
      Process.unlink(gone.pid)
      Process.exit(gone.pid, :kill)
      {:ok, _} = Tube.open(5, service: "gave up", linger: 100)
      assert {:ok, _tube} = Tube.accept(listener, 1_000)
    end)
  end

  test "a full backlog and a peer's limit refuse, and say so", %{vm: vm} do
    VM.run(vm, fn ->
      {:ok, listener} = Tube.listen(service: "narrow", active: false, backlog: 1)
      {:ok, _} = Tube.open(5, service: "narrow", linger: 100)
      assert {:error, :busy} = Tube.open(5, service: "narrow", timeout: 2_000)
      {:ok, _} = Tube.accept(listener, 1_000)
      assert {:ok, _} = Tube.open(5, service: "narrow", linger: 100)

      {:ok, _} = Tube.listen(service: "few", active: false, max_per_peer: 1)
      {:ok, _} = Tube.open(5, service: "few", linger: 100)
      assert {:error, :busy} = Tube.open(5, service: "few", timeout: 2_000)
    end)
  end
end
