defmodule Tube.Dist.ClusterTest do
  # Features of OTP and Elixir between nodes, over tubes.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.Node, as: Peer

  @a :a@dom5
  @b :b@dom7
  @c :c@dom9

  setup :fresh_run_dir

  defp nodes(run_dir, names) do
    vms =
      Peer.start_all!(
        for name <- names, do: [name: name, run_dir: run_dir, modules: [__MODULE__]]
      )

    [first | others] = vms
    for {_vm, name} <- Enum.zip(others, tl(names)), do: assert(Peer.connect(first, name) == true)
    vms
  end

  test "the kernel has distribution before any application runs, and no epmd", c do
    [a, b] = nodes(c.run_dir, [@a, @b])
    assert VM.call(a, :erlang, :node, []) == @a
    assert VM.call(a, :erlang, :nodes, []) == [@b]
    assert VM.call(b, :erlang, :nodes, []) == [@a]
    running = VM.call(a, :application, :which_applications, [])
    refute List.keymember?(running, :tube, 0)
    refute List.keymember?(running, :elixir, 0)

    assert {:net_address, _, ~c"dom7", :tube, :tube} =
             VM.call(a, :net_kernel, :node_info, [@b, :address]) |> elem(1)
  end

  @tag :apart
  test "the application finds its processes running, and leaves them running", c do
    [a, _b] = nodes(c.run_dir, [@a, @b])
    supervisor = VM.call(a, :erlang, :whereis, [Tube.Supervisor])
    assert is_pid(supervisor)
    {:ok, _} = VM.call(a, :application, :ensure_all_started, [:tube])
    assert VM.call(a, :erlang, :whereis, [Tube.Supervisor]) == supervisor
    assert VM.run(a, fn -> Tube.domid() end) == {:ok, 5}
    :ok = VM.call(a, :application, :stop, [:tube])
    assert VM.call(a, :erlang, :whereis, [Tube.Supervisor]) == supervisor
    assert VM.call(a, :net_adm, :ping, [@b]) == :pong
  end

  @tag :apart
  test "the supervision tree that the application watches restarts when it ends", c do
    [a, _b] = nodes(c.run_dir, [@a, @b])
    {:ok, _} = VM.call(a, :application, :ensure_all_started, [:tube])

    assert VM.run(a, fn ->
             old = Process.whereis(Tube.Supervisor)
             watch = Process.monitor(old)
             Process.exit(old, :kill)
             receive do: ({:DOWN, ^watch, :process, ^old, _} -> :ok)
             Tube.Supervisor.ensure_started()
             Process.whereis(Tube.Supervisor) != old
           end)

    # The node listens again and can be reached.
    b = Peer.start!(name: @c, run_dir: c.run_dir)
    Tube.Test.Eventually.true!(fn -> Peer.connect(b, @a) end, 15_000)
  end

  test "GenServer calls, casts, remote tasks, links and monitors", c do
    [a, b] = nodes(c.run_dir, [@a, @b])

    VM.run(b, fn ->
      {:ok, agent} = Agent.start(fn -> 41 end, name: :counter)
      {:ok, _} = Task.Supervisor.start_link(name: :tasks)
      agent
    end)

    assert VM.run(a, fn ->
             :ok = GenServer.cast({:counter, @b}, {:cast, {:erlang, :+, [1]}})
             remote = {Tube.Dist.ClusterTest, :node_and, [[:answer]]}
             {module, function, [args]} = remote
             task = Task.Supervisor.async({:tasks, @b}, module, function, args)
             {Agent.get({:counter, @b}, :erlang, :+, [0]), Task.await(task)}
           end) == {42, {@b, :answer}}

    assert VM.run(a, fn ->
             monitor = Process.monitor({:counter, @b})
             GenServer.stop({:counter, @b}, :shutdown)
             receive do: ({:DOWN, ^monitor, :process, {:counter, @b}, reason} -> reason)
           end) == :shutdown

    assert VM.run(a, fn ->
             Process.flag(:trap_exit, true)
             pid = Node.spawn_link(@b, :erlang, :exit, [:reason])
             receive do: ({:EXIT, ^pid, reason} -> reason)
           end) == :reason
  end

  test "three nodes: :global names, :pg groups, and messages in all directions", c do
    [_, b, third] = vms = nodes(c.run_dir, [@a, @b, @c])

    # :global connects all nodes with each other.
    for vm <- vms, do: Tube.Test.Eventually.true!(fn -> 2 == length(seen(vm)) end)

    for vm <- vms, do: {:ok, _} = VM.call(vm, :pg, :start, [:pg])
    {:yes, pid} = VM.run(b, fn -> {:global.register_name(:one, self()), self()} end)
    assert is_pid(pid)
    VM.run(b, fn -> :pg.join(:topic, self()) end)
    VM.run(third, fn -> :pg.join(:topic, self()) end)

    for vm <- vms do
      assert VM.run(vm, fn -> :global.sync() && node(:global.whereis_name(:one)) end) == @b
      Tube.Test.Eventually.true!(fn -> 2 == length(VM.call(vm, :pg, :get_members, [:topic])) end)
    end

    VM.run(hd(vms), fn -> for pid <- :pg.get_members(:topic), do: send(pid, {:news, node()}) end)
    for vm <- [b, third], do: assert(VM.run(vm, fn -> receive do: ({:news, n} -> n) end) == @a)
  end

  @tag :apart
  test "a hidden node, a long name", c do
    [a, hidden, long] =
      Peer.start_all!(
        for own <- [[name: @a], [name: @b, kernel: ["-hidden"]], [name: @c, long: true]],
            do: [run_dir: c.run_dir] ++ own
      )

    assert Peer.connect(hidden, @a) == true
    assert VM.call(a, :erlang, :nodes, []) == []
    assert VM.call(a, :erlang, :nodes, [:hidden]) == [@b]

    assert VM.call(long, :erlang, :node, []) == @c
  end

  test "a remote shell's group leader: output on the other node appears here", c do
    [a, _b] = nodes(c.run_dir, [@a, @b])

    assert VM.run(a, fn ->
             {:ok, io} = StringIO.open("")
             caller = self()

             Node.spawn(@b, Tube.Dist.ClusterTest, :say, [io, "from afar", caller])
             receive do: (:done -> :ok)
             StringIO.contents(io)
           end) == {"", "from afar"}
  end

  @doc false
  def node_and(term), do: {node(), term}

  @doc false
  def say(io, text, caller) do
    :io.put_chars(io, text)
    send(caller, :done)
  end

  defp seen(vm), do: VM.call(vm, :erlang, :nodes, [])
end
