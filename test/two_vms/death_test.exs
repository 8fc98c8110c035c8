defmodule Tube.TwoVMs.DeathTest do
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir

  setup :fresh_run_dir

  setup %{run_dir: run_dir} do
    %{tip: VM.start!(run_dir: run_dir, domid: 5), nock: VM.start!(run_dir: run_dir, domid: 7)}
  end

  describe "a VM killed while streaming" do
    test "the nock detects the end of the tip", %{tip: tip, nock: nock} do
      {_ours, theirs} = connect(tip, nock)
      streaming = VM.async(nock, fn -> send_forever(theirs) end, as: :sender)
      {:ok, _} = VM.run(tip, fn -> accepted() |> Tube.recv(5_000) end)
      VM.kill9(tip)
      assert Task.await(streaming, 10_000) in [:peer_down, :peer_domain_gone]

      # The owner does not know yet, and can still receive the reason; then everything is freed.
      VM.run(nock, fn ->
        assert {:error, reason} = Tube.recv(theirs, 5_000)
        assert reason in [:peer_down, :peer_domain_gone]
      end)

      assert_clean(nock)
    end

    test "the tip gets all messages, then the end of the nock", %{tip: tip, nock: nock} do
      {_ours, theirs} = connect(tip, nock)

      VM.run(nock, fn ->
        for n <- 1..50, do: :ok = Tube.send(theirs, "#{n}")
      end)

      VM.kill9(nock)

      VM.run(tip, fn ->
        tube = accepted()
        for n <- 1..50, do: {:ok, _} = {Tube.recv(tube, 5_000), n} |> elem(0)
        {:error, reason} = Tube.recv(tube, 5_000)
        assert reason in [:peer_down, :peer_domain_gone]
      end)

      assert_clean(tip)
    end

    test "an active owner gets the reason, then the end", %{tip: tip, nock: nock} do
      {_ours, theirs} = connect(tip, nock)
      VM.run(nock, fn -> :ok = Tube.setopts(theirs, active: true) end)
      VM.kill9(tip)

      VM.run(nock, fn ->
        assert_receive {:tube_error, ^theirs, reason}, 5_000
        assert reason in [:peer_down, :peer_domain_gone]
        assert_receive {:tube_closed, ^theirs}, 5_000
      end)

      assert_clean(nock)
    end
  end

  describe "a VM killed while connecting" do
    # Kills the VM after the first write of the handshake to the store, not after a delay.
    test "the tip, at any moment", %{run_dir: run_dir, tip: tip, nock: nock} do
      VM.run(tip, fn -> {:ok, _} = Tube.listen(active: false) end)
      open_request = "/local/domain/7/data/nock/5"
      watcher = watch(run_dir, open_request)
      opening = VM.async(nock, fn -> Tube.open(5, timeout: 3_000) end)
      await_watch(watcher)
      VM.kill9(tip)

      case Task.await(opening, 10_000) do
        # The handshake was faster than the kill: then the tube ends by itself.
        {:ok, _tube} -> :ok
        {:error, reason} -> assert reason in [:timeout, :peer_down, :peer_domain_gone]
      end

      assert_clean(nock)
      refute store(run_dir) =~ "/nock/5/"
    end

    test "the nock, at any moment", %{run_dir: run_dir, tip: tip, nock: nock} do
      VM.run(tip, fn ->
        {:ok, listener} = Tube.listen(active: false, timeout: 2_000)
        Process.put(:listener, listener)
      end)

      watcher = watch(run_dir, "/local/domain/5/data/tip/7")
      opener = spawn(fn -> VM.run(nock, fn -> Tube.open(5, timeout: 3_000) end) end)
      await_watch(watcher)
      VM.kill9(nock)
      Process.exit(opener, :kill)

      # The tube may already wait to be accepted; then accept it and receive its end.
      VM.run(tip, fn ->
        Tube.Test.Eventually.true!(
          fn ->
            case Tube.accept(Process.get(:listener), 0) do
              {:ok, tube} -> assert {:error, _gone} = Tube.recv(tube, 5_000)
              {:error, :timeout} -> :ok
            end

            DynamicSupervisor.count_children(Tube.Connections).active == 0
          end,
          10_000
        )
      end)

      assert_clean(tip)
      # The nock's own half stays as long as its domain, and names the tip's.
      refute store(run_dir) =~ ~r"^/local/domain/5/data/tip/7/0"m
    end
  end

  @tag :hub
  test "the hub killed and restarted under open tubes", %{run_dir: run_dir, tip: tip, nock: nock} do
    {ours, theirs} = connect(tip, nock)
    end_hub(run_dir, "KILL")
    # Data does not pass through the hub: the tube works without one.
    assert_talk(tip, ours, nock, theirs)

    for vm <- [tip, nock], do: VM.run(vm, fn -> await_attached() end, timeout: 20_000)
    # A second hub that lost the race for the lock may be about to exit.
    Tube.Test.Eventually.true!(fn -> match?([_one], hub_pids(run_dir)) end, 10_000)
    assert_talk(tip, ours, nock, theirs)

    # The new store has the old tube, and accepts new ones.
    Tube.Test.Eventually.true!(fn -> store(run_dir) =~ ~s(/tip/7/0/state = "4") end, 10_000)
    {more, and_more} = connect(tip, nock, :listening)
    assert_talk(tip, more, nock, and_more)
    assert VM.run(nock, fn -> Tube.close(theirs) end) == :ok
  end

  @tag :hub
  test "the peer killed while the hub is dead", %{run_dir: run_dir, tip: tip, nock: nock} do
    {_ours, theirs} = connect(tip, nock)

    # The holder of this lock is the hub: while the test holds it, every new hub exits again.
    lock = hold_lock(run_dir)
    VM.kill9(tip)

    VM.run(nock, fn ->
      assert {:error, reason} = Tube.recv(theirs, 5_000)
      assert reason in [:peer_down, :peer_domain_gone]
    end)

    # The rings are freed at once; the nodes, which were in the store that has gone, later.
    VM.run(nock, fn ->
      Tube.Test.Eventually.true!(
        fn -> match?(%{links: 0, pages: 0}, Tube.Native.live_counts()) end,
        5_000
      )

      refute match?({:ok, _}, Tube.domid())
    end)

    Port.close(lock)
    VM.run(nock, fn -> await_attached() end, timeout: 30_000)
    assert_clean(nock)
    refute store(run_dir) =~ "/nock/5/"
  end

  test "a tip that died is followed by another of the same domid", %{
    run_dir: run_dir,
    tip: tip,
    nock: nock
  } do
    {_ours, _theirs} = connect(tip, nock)
    VM.kill9(tip)
    again = VM.start!(run_dir: run_dir, domid: 5)
    {ours, theirs} = connect(again, nock)
    assert_talk(again, ours, nock, theirs)
  end

  # The effect of a domain that Xen destroys: its nodes vanish, without a notification.
  for {whose, gone} <- [{"a tip's", "data/tip"}, {"a nock's", "data/nock"}] do
    test "#{whose} nodes vanish: its owner's peer gets what was sent, and the reason", %{
      tip: tip,
      nock: nock
    } do
      {ours, theirs} = connect(tip, nock)

      {dying, sender, left, receiver} =
        case unquote(gone) do
          "data/tip" -> {tip, ours, nock, theirs}
          "data/nock" -> {nock, theirs, tip, ours}
        end

      VM.run(dying, fn -> for n <- 1..3, do: :ok = Tube.send(sender, "#{n}") end)

      VM.run(dying, fn ->
        {:ok, store} = Tube.Domain.store()
        :ok = Tube.Xenstore.rm(store, unquote(gone))
      end)

      VM.run(left, fn ->
        # The rings are freed without any call.
        Tube.Test.Eventually.true!(fn -> match?(%{pages: 0}, Tube.Native.live_counts()) end)
        for n <- 1..3, do: assert(Tube.recv(receiver, 5_000) == {:ok, "#{n}"})
        assert Tube.recv(receiver, 5_000) == {:error, :peer_domain_gone}
        assert Tube.send(receiver, "late") in [{:error, :peer_domain_gone}, {:error, :closed}]
      end)

      assert_clean(left)
      # To the VM that is still alive, the other one has gone.
      VM.run(dying, fn -> assert {:error, _reason} = Tube.recv(sender, 5_000) end)
      assert_clean(dying)
    end
  end

  test "a nock that died and came back gets a new tube, though the owner of the old has not noticed",
       %{
         run_dir: run_dir,
         tip: tip,
         nock: nock
       } do
    {ours, _theirs} = connect(tip, nock)
    VM.run(nock, fn -> :ok = Tube.send(hd(Tube.list()), "last words") end)
    VM.kill9(nock)
    again = VM.start!(run_dir: run_dir, domid: 7)
    {more, and_more} = connect(tip, again, :listening)
    assert_talk(tip, more, again, and_more)

    VM.run(tip, fn ->
      assert Tube.recv(ours, 5_000) == {:ok, "last words"}
      assert {:error, _reason} = Tube.recv(ours, 5_000)
    end)
  end

  # In the lab the permission of domain 0 would be permanent, so test/xen/cases has this test there.
  @tag :hub
  test "where domain 0 permits it, the end of any domain makes a tube check its peer", c do
    {_ours, theirs} = connect(c.tip, c.nock)
    env = store_env(c.run_dir)
    {"", 0} = System.cmd("xenstore-chmod", ["@releaseDomain", "n0", "r7"], env: env)
    VM.run(c.nock, fn -> :erlang.trace(theirs.pid, true, [:receive]) end)
    third = VM.start!(run_dir: c.run_dir, domid: 9)
    assert VM.run(third, fn -> Tube.domid() end) == {:ok, 9}
    VM.kill9(third)

    VM.run(c.nock, fn ->
      pid = theirs.pid
      assert_receive {:trace, ^pid, :receive, {:tube_domain, :released}}, 5_000
      # Both replies of the store.
      assert_receive {:trace, ^pid, :receive, {:xenstore, _, {:ok, "4"}}}, 5_000
      assert_receive {:trace, ^pid, :receive, {:xenstore, _, {:ok, _nonce}}}, 5_000
      :ok = Tube.send(theirs, "still here")
    end)

    assert VM.run(c.tip, fn -> Tube.recv(accepted(), 5_000) end) == {:ok, "still here"}
  end

  test "the owner's death closes the tube", %{tip: tip, nock: nock} do
    {ours, _theirs} = connect(tip, nock)
    VM.end_process(nock, :main)
    assert VM.run(tip, fn -> Tube.recv(ours, 5_000) end) == {:error, :closed}
    assert_clean(nock)
    assert_clean(tip)
  end

  # Queues for the lock before it kills the hub, so that no other process gets the lock first.
  defp hold_lock(run_dir) do
    script = ~s(echo waiting; exec flock "$0/hub.lock" sh -c 'echo held; cat')

    port =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        {:line, 80},
        {:args, ["-c", script, run_dir]}
      ])

    assert_receive {^port, {:data, {:eol, "waiting"}}}, 5_000
    # The kernel lists processes that wait for a lock.
    inode = File.stat!(Path.join(run_dir, "hub.lock")).inode
    Tube.Test.Eventually.true!(fn -> File.read!("/proc/locks") =~ ~r/-> FLOCK.*:#{inode} / end)
    for pid <- hub_pids(run_dir), do: System.cmd("kill", ["-9", "#{pid}"])
    assert_receive {^port, {:data, {:eol, "held"}}}, 5_000
    port
  end

  ## In the VMs

  def accepted, do: Process.get(:accepted)

  def send_forever(tube) do
    case Tube.send(tube, :binary.copy("x", 10_000)) do
      :ok -> send_forever(tube)
      {:error, reason} -> reason
    end
  end

  def await_attached do
    Tube.Test.Eventually.true!(fn -> match?({:ok, _}, Tube.domid()) end, 15_000)
  end

  ## In the test

  defp connect(tip, nock, listening \\ nil) do
    unless listening do
      VM.run(tip, fn ->
        {:ok, listener} = Tube.listen(active: false)
        Process.put(:listener, listener)
      end)
    end

    accepting =
      VM.async(tip, fn ->
        {:ok, tube} = Tube.accept(Process.get(:listener), 15_000)
        Process.put(:accepted, tube)
        tube
      end)

    {:ok, theirs} = VM.run(nock, fn -> Tube.open(5, active: false, timeout: 15_000) end)
    {Task.await(accepting, 20_000), theirs}
  end

  defp assert_talk(one, tube_one, other, tube_other) do
    VM.run(one, fn -> :ok = Tube.send(tube_one, "ping") end)
    assert VM.run(other, fn -> Tube.recv(tube_other, 5_000) end) == {:ok, "ping"}
    VM.run(other, fn -> :ok = Tube.send(tube_other, "pong") end)
    assert VM.run(one, fn -> Tube.recv(tube_one, 5_000) end) == {:ok, "pong"}
  end

  # No tube, ring, page or descriptor of a link is left in that VM.
  defp assert_clean(vm) do
    VM.run(
      vm,
      fn ->
        Tube.Test.Eventually.true!(
          fn -> DynamicSupervisor.count_children(Tube.Connections).active == 0 end,
          10_000
        )

        Tube.Test.Eventually.true!(
          fn -> match?(%{links: 0, pages: 0}, Tube.Native.live_counts()) end,
          5_000
        )
      end,
      as: :checker
    )
  end

  defp store_env(run_dir), do: [{"XENSTORED_PATH", Path.join(run_dir, "dom0/xenstored.sock")}]

  defp store(run_dir) do
    {text, 0} = System.cmd("xenstore-ls", ["-fp"], env: store_env(run_dir))
    text
  end

  # Watches a path with Debian's xenstore-watch, an independent client: one line for the
  # registration, then one for each change.
  defp watch(run_dir, path) do
    [{name, value}] = store_env(run_dir)

    port =
      Port.open({:spawn_executable, System.find_executable("xenstore-watch")}, [
        :binary,
        {:line, 1024},
        {:args, [path]},
        {:env, [{to_charlist(name), to_charlist(value)}]}
      ])

    # It does not exit by itself when the store goes.
    {:os_pid, os_pid} = Port.info(port, :os_pid)
    on_exit(fn -> System.cmd("kill", ["#{os_pid}"], stderr_to_stdout: true) end)
    await_watch(port)
    port
  end

  defp await_watch(port), do: assert_receive({^port, {:data, {:eol, _path}}}, 10_000)
end
