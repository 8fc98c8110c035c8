defmodule Tube.Dist.BehaviourTest do
  # Uses of nodes, over tubes: global names through a partition, a copied table, a remote shell, and
  # distribution that starts and stops at run time.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.{Eventually, Lab}
  alias Tube.Test.Node, as: Peer
  alias Tube.Test.Node.Spare

  @a :a@dom5
  @b :b@dom7
  @limit Lab.timeout(30_000)
  @guide Path.expand("../../guides/distribution.md", __DIR__)

  setup :fresh_run_dir

  defp nodes!(c, names) do
    Peer.start_all!(
      for name <- names, do: [name: name, run_dir: c.run_dir, modules: [__MODULE__]]
    )
  end

  test "a :global name registered on both sides of a partition is one process after it", c do
    [a, b] = nodes!(c, [@a, @b])
    # Only the test makes connections.
    for vm <- [a, b],
        do: VM.call(vm, :application, :set_env, [:kernel, :dist_auto_connect, :never])

    here = fn vm -> VM.call(vm, :global, :whereis_name, [:one]) end

    register = fn ->
      {:global.register_name(:one, self(), &:global.random_notify_name/3), self()}
    end

    assert Peer.connect(a, @b)
    {:yes, at_b} = VM.run(b, register)
    Eventually.true!(fn -> here.(a) == at_b end)

    VM.call(a, :erlang, :disconnect_node, [@b])
    Eventually.true!(fn -> here.(a) == :undefined end)
    assert here.(b) == at_b
    {:yes, at_a} = VM.run(a, register)

    assert Peer.connect(a, @b)
    Eventually.true!(fn -> here.(a) == here.(b) and here.(a) in [at_a, at_b] end)
    # The other process is notified.
    loser = if here.(a) == at_a, do: b, else: a
    assert VM.run(loser, fn -> receive do: ({:global_name_conflict, name} -> name) end) == :one
  end

  # Around the size at which the VM splits a message in two, which the carrier joins again
  # (driver/fragments.rs): without a second part, with a short one, and with one that does not fit.
  # The VM decides whether other messages come in between; native/tube/tests/fragments.rs tests that
  # case.
  @fragment 65_536
  @senders 4
  test "messages around the size of a fragment, from several senders, arrive whole and in order",
       c do
    [a, b] = nodes!(c, [@a, @b])
    assert Peer.connect(a, @b)
    sizes = Enum.to_list((@fragment - 160)..(@fragment + 640)//Lab.amount(4, 40))
    sink = VM.run(b, fn -> spawn(fn -> sink(%{}, @senders * length(sizes)) end) end)

    assert VM.run(a, fn -> deliver(sink, sizes) end, timeout: @limit) ==
             Map.new(1..@senders, &{&1, length(sizes)})
  end

  defp deliver(sink, sizes) do
    for sender <- 1..@senders do
      spawn_link(fn ->
        for {size, count} <- Enum.with_index(sizes) do
          data = :rand.bytes(size)
          send(sink, {sender, count, :erlang.md5(data), data})
          send(sink, :between)
        end
      end)
    end

    send(sink, {:all, self()})
    receive do: ({^sink, counts} -> counts)
  end

  defp sink(counts, 0) do
    receive do: ({:all, from} -> send(from, {self(), counts}))
  end

  defp sink(counts, left) do
    receive do
      {sender, count, digest, data} ->
        # Each sender's messages are in order and intact.
        ^count = Map.get(counts, sender, 0)
        ^digest = :erlang.md5(data)
        sink(Map.put(counts, sender, count + 1), left - 1)
    end
  end

  @records 100
  @mib 1_048_576
  test "a Mnesia table of #{@records} MiB is copied", c do
    [a, b] = nodes!(c, [@a, @b])

    for vm <- [a, b] do
      # In memory only.
      :ok = VM.call(vm, :application, :load, [:mnesia])
      :ok = VM.call(vm, :application, :set_env, [:mnesia, :schema_location, :ram])
      {:ok, _} = VM.call(vm, :application, :ensure_all_started, [:mnesia])
    end

    VM.run(a, fn ->
      {:atomic, :ok} = :mnesia.create_table(:large, ram_copies: [node()])
      for n <- 1..@records, do: :ok = :mnesia.dirty_write({:large, n, record(n)})
    end)

    assert Peer.connect(a, @b)

    assert VM.run(a, fn ->
             {:ok, [@b]} = :mnesia.change_config(:extra_db_nodes, [@b])
             :mnesia.add_table_copy(:large, @b, :ram_copies)
           end) == {:atomic, :ok}

    assert VM.run(b, fn ->
             assert Enum.sort(:mnesia.table_info(:large, :ram_copies)) == [@a, @b]
             # From the local copy, not through the other node.
             assert :mnesia.table_info(:large, :where_to_read) == @b

             for n <- 1..@records,
                 [{:large, ^n, data}] = :mnesia.dirty_read(:large, n),
                 data == record(n),
                 do: n
           end) == Enum.to_list(1..@records)

    # From then on it is one table.
    assert VM.run(b, fn ->
             :mnesia.transaction(fn -> :mnesia.write({:large, 0, "from b"}) end)
           end) == {:atomic, :ok}

    assert VM.call(a, :mnesia, :dirty_read, [:large, 0]) == [{:large, 0, "from b"}]
  end

  test "iex --remsh: a shell on the other node, over a terminal", c do
    Peer.start!(name: @a, run_dir: c.run_dir, cookie: "secret")

    line =
      ~s(ERL_LIBS=_build/dev/lib iex --erl "-proto_dist tube -start_epmd false" --sname c@dom9 --cookie secret --remsh a@dom5)

    assert File.read!(@guide) =~ line
    libraries = :tube |> :code.lib_dir() |> Path.dirname()
    shell = String.replace(line, "_build/dev/lib", libraries)

    port = terminal(shell, 9, [{"TUBE_RUN_DIR", c.run_dir}, {"TERM", "vt100"}])
    output = until(port, "", "iex(#{@a})1>")
    Port.command(port, ~s|IO.puts("six times seven on \#{node\(\)} is \#{6 * 7}"\)\n|)
    output = until(port, output, "six times seven on a@dom5 is 42")
    Port.command(port, "Node.list()\n")
    until(port, output, "[:c@dom9]")
  end

  @tag :apart
  test "Node.start and Node.stop at run time: a tube of the application goes on", c do
    args = ~w(-proto_dist tube -start_epmd false -setcookie tubes)
    a = VM.start!(run_dir: c.run_dir, domid: 5, args: args)
    [b] = nodes!(c, [@b])
    VM.run(b, fn -> {:ok, _} = Tube.listen(service: "other", active: false) end)

    VM.run(a, fn ->
      {:ok, tube} = Tube.open(7, service: "other", active: false, timeout: @limit)
      Process.put(:tube, tube)
    end)

    for _ <- 1..2 do
      assert {:ok, _pid} = VM.run(a, fn -> Node.start(@a, :shortnames) end)
      assert Peer.connect(a, @b)
      assert VM.call(b, :erlang, :nodes, []) == [@a]

      # A tube that has just ended, or the second one when both connect at once, may remain briefly.
      Eventually.true!(fn -> VM.run(a, fn -> length(Tube.list()) end) == 2 end)
      assert VM.run(a, fn -> Node.stop() end) == :ok
      Eventually.true!(fn -> VM.call(b, :erlang, :nodes, []) == [] end)
      Eventually.true!(fn -> VM.run(a, fn -> Tube.list() == [Process.get(:tube)] end) end)
      assert VM.run(a, fn -> Tube.send(Process.get(:tube), "still here") end) == :ok
    end
  end

  ## In the nodes

  defp record(n), do: :binary.copy(<<n>>, @mib - n)

  ## Here

  # A shell needs a terminal, which `script` provides. `script` does not end with its input; killing
  # it also ends the shell.
  defp terminal(shell, domid, env) do
    words = ["script", "-qec", shell, "/dev/null"]

    # Its connection gets the same time limit in the lab as those of other nodes.
    there = ["env", "TERM=vt100", "ELIXIR_ERL_OPTIONS=-kernel net_setuptime 60"]

    {program, args, env} =
      if Lab.here?(),
        do: {Lab.enter(), there ++ words, [{"TUBE_DOMID", "#{domid}"}]},
        else: {System.find_executable("script"), tl(words), env}

    Spare.make_way(domid)
    env = for {name, value} <- env, do: {to_charlist(name), to_charlist(value)}
    options = [:binary, :exit_status, :stderr_to_stdout, args: args, env: env]
    port = Port.open({:spawn_executable, program}, options)
    {:os_pid, pid} = Port.info(port, :os_pid)

    # In the lab, waits until the domain is free.
    ended = """
    kill -9 $(pidof script)
    while grep -q @tube/ /proc/net/unix; do usleep 50000; done
    """

    on_exit(fn ->
      if Lab.here?(),
        do: Lab.sh(domid, ended),
        else: System.cmd("kill", ["#{pid}"], stderr_to_stdout: true)
    end)

    port
  end

  defp until(port, output, wanted) do
    if output =~ wanted do
      output
    else
      receive do
        {^port, {:data, more}} -> until(port, output <> more, wanted)
        {^port, {:exit_status, _}} -> flunk("the shell ended after #{inspect(output)}")
      after
        @limit -> flunk("no #{inspect(wanted)} in #{inspect(output)}")
      end
    end
  end
end
