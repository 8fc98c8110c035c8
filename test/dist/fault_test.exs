defmodule Tube.Dist.FaultTest do
  # Failures between nodes, and their consequences.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.{Eventually, Lab}
  alias Tube.Test.Node, as: Peer

  @a :a@dom5
  @b :b@dom7

  # In the lab most of these need nodes of their own.
  @moduletag :apart

  setup :fresh_run_dir

  defp start(context, options \\ []) do
    common = [run_dir: context.run_dir] ++ options
    [a, b] = Peer.start_all!([[name: @a] ++ common, [name: @b] ++ common])
    {a, b}
  end

  # Subscribes the test's process in that VM to nodeup and nodedown.
  defp watch(vm), do: VM.run(vm, fn -> :net_kernel.monitor_nodes(true) end)

  defp await(vm, what) do
    VM.run(vm, fn ->
      receive do
        {^what, node} -> {node, System.monotonic_time(:millisecond)}
      end
    end)
  end

  # In the lab the kill itself takes a while: test/xen/cases/dist_test.exs measures there.
  test "a killed peer is down within 500 ms", c do
    {a, b} = start(c)
    assert Peer.connect(a, @b)
    watch(a)
    before = VM.run(a, fn -> System.monotonic_time(:millisecond) end)
    VM.kill9(b)
    {@b, at} = await(a, :nodedown)
    assert at - before < Lab.amount(500, 30_000)
    assert VM.call(a, :erlang, :nodes, []) == []
    clean(a)
  end

  # An emulated processor cannot always send a tick each half second.
  @ticktime Lab.amount(2, 12)
  @ticks ["-kernel", "net_ticktime", "#{@ticktime}"]

  test "net_ticktime detects a stopped peer", c do
    {a, b} = start(c, kernel: @ticks)
    assert Peer.connect(a, @b)
    watch(a)
    :ok = VM.signal(b, "STOP")
    assert {@b, _at} = await(a, :nodedown)
    :ok = VM.signal(b, "CONT")
    assert Eventually.true!(fn -> Peer.connect(a, @b) == true end) == :ok
  end

  test "an idle connection stays: ticks go both ways", c do
    {a, b} = start(c, kernel: @ticks)
    assert Peer.connect(a, @b)
    watch(a)
    watch(b)

    await_down = fn ->
      receive do
        {:nodedown, node} -> node
      after
        2_000 * @ticktime -> :up
      end
    end

    both = for vm <- [a, b], do: VM.async(vm, await_down)
    assert Task.await_many(both, 30_000) == [:up, :up]
  end

  test "both connecting at once, over and over, makes one connection", c do
    # Otherwise :global reconnects the nodes that the test has disconnected.
    {a, b} = start(c, kernel: ["-connect_all", "false"])

    for _ <- 1..Lab.amount(30, 3) do
      both = for {vm, node} <- [{a, @b}, {b, @a}], do: Task.async(Peer, :connect, [vm, node])
      assert Task.await_many(both, 80_000) == [true, true]
      assert VM.call(a, :erlang, :nodes, []) == [@b]
      assert VM.call(b, :erlang, :nodes, []) == [@a]
      assert VM.call(a, :erlang, :disconnect_node, [@b])
      Eventually.true!(fn -> VM.call(b, :erlang, :nodes, []) == [] end)
    end

    for vm <- [a, b], do: clean(vm)
  end

  @reconnections Lab.amount(100, 5)
  test "#{@reconnections} reconnections leave nothing behind", c do
    {a, b} = start(c, kernel: ["-connect_all", "false"])
    assert Peer.connect(a, @b)
    counts = for vm <- [a, b], do: {vm, stable(vm), VM.fd_count(vm)}

    for _ <- 1..@reconnections do
      assert VM.call(a, :erlang, :disconnect_node, [@b])
      assert Peer.connect(a, @b)
    end

    for {vm, processes, fds} <- counts do
      clean(vm)
      Eventually.true!(fn -> VM.fd_count(vm) <= fds end)

      Eventually.true!(fn -> VM.call(vm, :erlang, :system_info, [:process_count]) <= processes end)
    end

    # Each tube's process removes its nodes before it ends. Only the tube of the last connection
    # remains.
    Eventually.true!(
      fn ->
        1 == VM.run(a, fn -> tubes(5, 7) end) + VM.run(b, fn -> tubes(7, 5) end)
      end,
      15_000
    )
  end

  test "Node.stop leaves the tubes of the application, and the node can start again", c do
    {a, b} = start(c)
    assert Peer.connect(a, @b)
    VM.run(b, fn -> {:ok, _} = Tube.listen(service: "other", active: false, ring: 4096) end)

    # The tube stays in that VM: its pid contains the node's name, which is about to change.
    VM.run(a, fn ->
      {:ok, tube} = Tube.open(7, service: "other", active: false, timeout: 30_000)
      Process.put(:tube, tube)
      :ok
    end)

    watch(b)

    # Node.stop refuses nodes that were named on the command line, so the test stops distribution
    # itself.
    :ok = VM.call(a, :supervisor, :terminate_child, [:kernel_sup, :net_sup])
    assert {@a, _} = await(b, :nodedown)
    assert VM.run(a, fn -> Tube.send(Process.get(:tube), "still here") end) == :ok
    assert {:ok, %{state: 4}} = VM.run(a, fn -> Tube.info(Process.get(:tube)) end)
    {:ok, _} = VM.call(a, :supervisor, :restart_child, [:kernel_sup, :net_sup])
    assert Eventually.true!(fn -> Peer.connect(b, @a) == true end) == :ok
  end

  test "another cookie is refused, and the attempt leaves nothing behind", c do
    common = [run_dir: c.run_dir]
    [a, b] = Peer.start_all!([[name: @a] ++ common, [name: @b, cookie: "another"] ++ common])
    assert Peer.connect(a, @b) == false
    assert Peer.connect(b, @a) == false
    for vm <- [a, b], do: clean(vm)
  end

  test "a domain that is not on the list of peers never gets to the cookie", c do
    [a, _b, listed] =
      Peer.start_all!(
        for own <- [
              [name: @a, kernel: ~w(-kernel net_setuptime 1)],
              [name: @b, kernel: ~w(-kernel tube_dist [{peers,[9]}])],
              [name: :c@dom9]
            ],
            do: [run_dir: c.run_dir] ++ own
      )

    assert Peer.connect(a, @b) == false
    assert Peer.connect(listed, @b) == true
  end

  @tag :hub
  test "the hub's restart does not break a connection, and new ones are made after it", c do
    {a, _b} = start(c)
    assert Peer.connect(a, @b)
    watch(a)
    end_hub(c.run_dir)
    assert VM.call(a, :net_adm, :ping, [@b]) == :pong
    third = Peer.start!(name: :c@dom9, run_dir: c.run_dir)
    Eventually.true!(fn -> Peer.connect(third, @a) == true end, 15_000)
    assert {:messages, messages} = VM.run(a, fn -> Process.info(self(), :messages) end)
    refute {:nodedown, @b} in messages
  end

  @tag :hub
  test "errors explain an invalid node name and an invalid order of carriers", c do
    for args <- [
          ~w(-proto_dist tube -sname a@elsewhere),
          ~w(-proto_dist tube inet_tcp -sname a@dom5)
        ] do
      {text, status} =
        System.cmd(
          "erl",
          Enum.map(VM.code_path(), &to_string/1) ++
            args ++ ~w(-start_epmd false -noshell -eval halt\(\).),
          # An unused port: the other carrier must not find an epmd and start the node alone.
          env: [{"TUBE_RUN_DIR", c.run_dir}, {"ERL_EPMD_PORT", "1"}],
          stderr_to_stdout: true
        )

      assert status != 0
      assert text =~ "name@dom5" or text =~ "must be the last"
    end
  end

  # The VM has exactly the links of its connections.
  defp clean(vm) do
    Eventually.true!(
      fn ->
        connections = length(VM.call(vm, :erlang, :nodes, []))

        VM.call(vm, Tube.Native, :live_counts, []).links == connections and
          VM.call(vm, DynamicSupervisor, :count_children, [Tube.Connections]).active ==
            connections
      end,
      15_000
    )
  end

  defp stable(vm), do: VM.call(vm, :erlang, :system_info, [:process_count]) + 2

  # The number of tubes to the peer that this domain has in the store.
  defp tubes(me, peer) do
    {:ok, store} = Tube.Domain.store()

    case Tube.Xenstore.directory(store, Tube.Paths.outbox(me, peer)) do
      {:ok, tids} -> length(tids)
      {:error, :enoent} -> 0
    end
  end
end
