defmodule Tube.HandleTest do
  # Operations on a tube other than sending and receiving, in one VM that opens tubes to itself.
  use Tube.Test.OneVM, async: false

  test "peer: domid, service and number, the same at both ends", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair(service: "who is it", tid: 77)
      assert {:ok, %{domid: 5, service: "who is it", tid: 77}} == Tube.peer(tip)
      assert Tube.peer(nock) == Tube.peer(tip)
      :ok = end_both(nock, tip)
      assert {:error, :closed} = Tube.peer(nock)
    end)
  end

  test "after close the tube is listed nowhere, and its number is free", %{vm: vm} do
    VM.run(vm, fn ->
      {:ok, _listener} = Tube.listen(service: "gone at once")

      # Concurrently, so that other tubes open and close at the same time.
      1..4
      |> Enum.map(fn tid ->
        Task.async(fn ->
          for _ <- 1..20 do
            {:ok, tube} = Tube.open(5, service: "gone at once", tid: tid, linger: 0)
            assert :ok = Tube.close(tube)
            assert {:error, :closed} = Tube.peer(tube)
            assert tube not in Tube.list()
          end
        end)
      end)
      |> Task.await_many(30_000)
    end)
  end

  test "getopts: the current values, in the order of the names", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair(ring: 8192, linger: 700)

      assert {:ok, [linger: 700, active: false, ring: 8192, mode: :tube, service: "pair"]} =
               Tube.getopts(nock, [:linger, :active, :ring, :mode, :service])

      :ok = Tube.setopts(nock, active: 3, send_timeout: 50)
      assert {:ok, [send_timeout: 50, active: 3]} = Tube.getopts(nock, [:send_timeout, :active])
      :ok = Tube.send(tip, "one of three")
      assert_receive {:tube, ^nock, "one of three"}, 1_000

      # Anyone may ask.
      assert {:ok, [active: 2]} = Task.await(Task.async(Tube, :getopts, [nock, [:active]]))
      :ok = Tube.setopts(nock, active: :once)
      assert {:ok, [active: :once]} = Tube.getopts(nock, [:active])
      :ok = Tube.setopts(nock, active: true)
      assert {:ok, [active: true]} = Tube.getopts(nock, [:active])

      assert_raise ArgumentError, ~r/\[:colour\] for getopts: allowed is a list of .*:ring/, fn ->
        Tube.getopts(nock, [:colour])
      end

      :ok = end_both(nock, tip)
      assert {:error, :closed} = Tube.getopts(nock, [:active])
    end)
  end

  test "poll: at open and later, active and passive, and without its poller", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair(poll: {:adaptive, 500})
      assert {:ok, [poll: {:adaptive, 500}]} = Tube.getopts(tip, [:poll])

      for n <- 1..50 do
        :ok = Tube.send(nock, <<n>>)
        assert {:ok, <<^n>>} = Tube.recv(tip, 1_000)
      end

      :ok = Tube.setopts(tip, poll: :off)
      {:links, before} = Process.info(tip.pid, :links)
      :ok = Tube.setopts(tip, active: true, poll: {:adaptive, 200})
      assert {:ok, [poll: {:adaptive, 200}]} = Tube.getopts(tip, [:poll])

      for n <- 1..50 do
        :ok = Tube.send(nock, <<n>>)
        assert_receive {:tube, ^tip, <<^n>>}, 1_000
      end

      {:links, links} = Process.info(tip.pid, :links)
      [poller] = links -- before
      monitor = Process.monitor(poller)
      Process.exit(poller, :kill)
      assert_receive {:DOWN, ^monitor, _, _, _}, 1_000
      :ok = Tube.send(nock, "without")
      assert_receive {:tube, ^tip, "without"}, 1_000
      assert {:ok, [poll: :off]} = Tube.getopts(tip, [:poll])
      assert {:error, :not_owner} = Task.await(Task.async(Tube, :setopts, [tip, [poll: :off]]))
      :ok = end_both(nock, tip)
    end)
  end

  test "getstat counts messages, bytes and waits for room", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair(ring: 4096)
      for n <- 1..3, do: :ok = Tube.send(nock, :binary.copy("x", n))
      {:ok, "x"} = Tube.recv(tip, 1_000)
      {:ok, sent} = Tube.getstat(nock)
      {:ok, received} = Tube.getstat(tip)
      assert %{send_cnt: 3, send_oct: 6, send_max: 3, recv_cnt: 0, full_waits: 0} = Map.new(sent)
      assert %{recv_cnt: 1, recv_oct: 1, recv_max: 1, send_cnt: 0} = Map.new(received)
      assert received[:recv_pend] > 0

      {:error, :busy} = fill(nock)
      {:ok, full} = Tube.getstat(nock)
      assert full[:full_waits] > 0
      assert full[:send_pend] in 3000..4096
      assert full[:bells] + full[:bells_spared] > 0
      :ok = end_both(nock, tip)
      assert {:error, :closed} = Tube.getstat(nock)
    end)
  end

  test "on_full: :drop drops a port's commands that find no room", %{
    vm: vm
  } do
    VM.run(vm, fn ->
      {nock, tip} = pair(mode: :port, on_full: :drop, ring: 4096)
      command = fn data -> send(nock.pid, {self(), {:command, data}}) end
      for n <- 1..50, do: command.([n, :binary.copy("x", 999)])
      # The tube's process replies after it has handled them.
      assert {:ok, [on_full: :drop]} = Tube.getopts(nock, [:on_full])
      {:ok, %{send_dropped: dropped, send_cnt: kept}} = stat(nock)
      assert dropped > 40 and kept > 1 and kept + dropped == 50
      assert {:ok, 0} = :tube.can_send(nock.pid)
      {:ok, received} = Tube.recv_many(tip)
      assert for(<<n, _::binary>> <- received, do: n) == Enum.to_list(1..kept)

      # A command in progress continues; a command behind it is dropped instead of waiting.
      long = :binary.copy("long", 5_000)
      command.(long)
      command.("behind")
      assert {:ok, ^long} = Tube.recv(tip, 1_000)
      assert {:ok, %{send_dropped: now}} = stat(nock)
      assert now == dropped + 1
      command.("after")
      assert {:ok, "after"} = Tube.recv(tip, 1_000)
      :ok = end_both(nock, tip)
    end)
  end

  @doc false
  def stat(tube), do: with({:ok, counted} <- Tube.getstat(tube), do: {:ok, Map.new(counted)})

  test "a send that does not wait returns busy when there is no room", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair(ring: 4096)
      {:error, :busy} = fill(nock)
      big = :binary.copy("b", 1_000)
      assert {:error, :busy} = Tube.send(nock, big, 0)
      assert {:error, :busy} = Tube.send(nock, big, timeout: 0)
      assert {:error, :busy} = Tube.send(nock, big, nosuspend: true)
      assert {:error, :timeout} = Tube.send(nock, big, timeout: 20)
      assert {:error, :timeout} = Tube.send(nock, big, 20)

      # The ring has nothing of those messages, and the mailbox no leftover of their waiting.
      all = drain(tip)
      assert Enum.all?(all, &(&1 == :binary.copy("f", 500)))
      assert :ok = Tube.send(nock, "there is room", nosuspend: true)
      assert {:ok, "there is room"} = Tube.recv(tip, 1_000)
      refute_received _

      :ok = Tube.setopts(nock, send_timeout: 0)
      {:error, :busy} = fill(nock)
      assert {:error, :busy} = Tube.send(nock, big)

      for {options, parts} <- [
            {[timeout: -1], [":timeout", "-1", "from 0"]},
            {[nosuspend: 1], [":nosuspend", "1", "true or false"]},
            {[force: true], [":force", "send", ":nosuspend"]}
          ] do
        %ArgumentError{message: message} = catch_error(Tube.send(nock, "x", options))
        for part <- parts, do: assert(message =~ part)
      end
    end)
  end

  describe "shutdown" do
    test "ends one direction; the other goes on, and the store says that the tube is open", c do
      VM.run(c.vm, fn ->
        {nock, tip} = pair()
        for n <- 1..5, do: :ok = Tube.send(nock, "#{n}")
        assert :ok = Tube.shutdown(nock, :write)
        assert {:error, :closed} = Tube.send(nock, "too late")
        for n <- 1..5, do: assert({:ok, "#{n}"} == Tube.recv(tip, 1_000))
        assert {:error, :closed} = Tube.recv(tip, 1_000)

        # The peer has seen the end, but this direction is still open: all replies arrive.
        for n <- 1..200, do: :ok = Tube.send(tip, ["reply ", "#{n}"])
        for n <- 1..200, do: assert({:ok, "reply #{n}"} == Tube.recv(nock, 1_000))
        assert {:ok, %{state: 4}} = Tube.info(nock)
        assert {:ok, %{state: 4}} = Tube.info(tip)
        assert inspect(nock) =~ "half-closed"

        assert :ok = Tube.shutdown(nock, :write)
        assert :ok = Tube.shutdown(tip, :write)
        assert {:error, :closed} = Tube.recv(nock, 1_000)
        :ok = end_both(nock, tip)
        assert {:error, :closed} = Tube.shutdown(nock, :write)
      end)
    end

    test "an active owner gets the end, and may still reply", %{vm: vm} do
      VM.run(vm, fn ->
        {nock, tip} = pair(active: true)
        :ok = Tube.send(nock, "question")
        :ok = Tube.shutdown(nock, :write)
        assert_receive {:tube, ^tip, "question"}, 1_000
        assert_receive {:tube_closed, ^tip}, 1_000
        :ok = Tube.send(tip, "reply")
        assert_receive {:tube, ^nock, "reply"}, 1_000
        :ok = Tube.close(tip)
        assert_receive {:tube_closed, ^nock}, 1_000
      end)
    end

    test "commands given to a port before it are sent before it", %{vm: vm} do
      VM.run(vm, fn ->
        {nock, tip} = pair(mode: :port, ring: 4096)
        big = :binary.copy("z", 1_500)
        for n <- 1..50, do: send(nock.pid, {self(), {:command, [<<n>>, big]}})
        :ok = Tube.shutdown(nock, :write)
        for n <- 1..50, do: assert({:ok, <<^n, ^big::binary>>} = Tube.recv(tip, 2_000))
        assert {:error, :closed} = Tube.recv(tip, 2_000)
      end)
    end

    test "is only for the owner, and only for :write", %{vm: vm} do
      VM.run(vm, fn ->
        {nock, _tip} = pair()
        assert {:error, :not_owner} = Task.await(Task.async(Tube, :shutdown, [nock, :write]))

        assert_raise ArgumentError, ~r/:read for shutdown: allowed is :write/, fn ->
          Tube.shutdown(nock, :read)
        end

        assert_raise ArgumentError, ~r/is not a tube/, fn -> Tube.shutdown(self(), :write) end
      end)
    end
  end

  describe "inspect" do
    test "shows one name at both ends, and the state", %{vm: vm} do
      VM.run(vm, fn ->
        {nock, tip} = pair(service: "echo", tid: 303)
        assert inspect(nock) == ~s(#Tube<5:303 -> 5 "echo" connected 64KiB>)
        assert inspect(tip) == inspect(nock)
        assert inspect([nock]) == "[#{inspect(nock)}]"
        :ok = end_both(nock, tip)
        assert inspect(nock) == "#Tube<#{inspect(nock.pid)} closed>"
      end)
    end

    test "a tube that is closed, foreign or malformed", %{vm: vm} do
      gone = %Tube{pid: self(), port: nil, id: 12_345}
      assert inspect(gone) == "#Tube<#{inspect(self())} closed>"
      assert inspect(%Tube{pid: nil, port: nil, id: nil}) =~ "Tube"

      # In a VM where the library does not run.
      :ok = VM.run(vm, fn -> Application.stop(:tube) end)
      assert VM.run(vm, fn -> inspect(gone) end) =~ "closed>"
      {:ok, _started} = VM.run(vm, fn -> Application.ensure_all_started(:tube) end)
    end
  end

  describe "a listener in a supervision tree" do
    test "is found by name, started again, and gone with its supervisor", %{vm: vm} do
      VM.run(vm, fn ->
        children = [{Tube, service: "supervised", active: false, name: Tube.Test.Supervised}]
        {:ok, supervisor} = Supervisor.start_link(children, strategy: :one_for_one)
        assert [{Tube.Test.Supervised, first, :worker, _}] = Supervisor.which_children(supervisor)

        {:ok, nock} = Tube.open(5, service: "supervised", active: false)
        {:ok, tip} = Tube.accept(Tube.Test.Supervised, 2_000)
        :ok = Tube.send(nock, "by name")
        assert {:ok, "by name"} = Tube.recv(tip, 1_000)

        # The service is free for the next listener at once.
        monitor = Process.monitor(first)
        Process.exit(first, :kill)
        assert_receive {:DOWN, ^monitor, :process, ^first, :killed}, 1_000
        {:ok, again} = Tube.open(5, service: "supervised", active: false)
        assert {:ok, _tip} = Tube.accept(Tube.Test.Supervised, 2_000)
        # An accepted tube does not depend on the listener any more.
        :ok = Tube.send(nock, "still here")
        assert {:ok, "still here"} = Tube.recv(tip, 1_000)
        :ok = Tube.close(again)

        :ok = Supervisor.stop(supervisor)
        assert {:error, :closed} = Tube.accept(Tube.Test.Supervised, 0)
        assert {:ok, _free} = Tube.listen(service: "supervised")
      end)
    end

    test "start_link, and its errors", %{vm: vm} do
      VM.run(vm, fn ->
        Process.flag(:trap_exit, true)
        {:ok, listener} = Tube.start_link(service: "linked")
        assert {:error, :eexist} = Tube.start_link(service: "linked")
        assert {:error, :eexist} = Tube.listen(service: "linked")
        Process.exit(listener, :shutdown)
        assert_receive {:EXIT, ^listener, :shutdown}, 1_000
      end)

      assert %{id: {Tube, "a"}} = Tube.child_spec(service: "a")

      assert %{id: :b, start: {Tube, :start_link, [[service: "a"]]}} =
               Tube.child_spec(service: "a", id: :b)

      for {fun, parts} <- [
            {fn -> Tube.start_link(name: "text") end, [":name", "\"text\"", "an atom"]},
            {fn -> Tube.child_spec(service: 1) end, [":service", "1"]},
            {fn -> Tube.child_spec(:echo) end, [":echo", "keyword list"]},
            {fn -> Tube.accept("echo") end, ["\"echo\"", "is not a listener", "start_link/1"]}
          ] do
        %ArgumentError{message: message} = catch_error(fun.())
        for part <- parts, do: assert(message =~ part, "#{inspect(part)} is not in: #{message}")
      end
    end
  end

  @doc false
  def pair(options \\ []) do
    options = Keyword.merge([active: false, service: "pair", linger: 100], options)
    {:ok, listener} = Tube.listen(Keyword.delete(options, :tid))
    {:ok, nock} = Tube.open(5, options)
    {:ok, tip} = Tube.accept(listener, 5_000)
    {nock, tip}
  end

  # Returns when both ends have ended.
  @doc false
  def end_both(nock, tip) do
    monitors = for tube <- [nock, tip], do: Process.monitor(tube.pid)
    :ok = Tube.close(nock)
    Tube.close(tip)
    for monitor <- monitors, do: assert_receive({:DOWN, ^monitor, _, _, _}, 5_000)
    :ok
  end

  @doc false
  def fill(tube) do
    case Tube.send(tube, :binary.copy("f", 500), 0) do
      :ok -> fill(tube)
      full -> full
    end
  end

  @doc false
  def drain(tube) do
    case Tube.recv(tube, 0) do
      {:ok, data} -> [data | drain(tube)]
      {:error, :timeout} -> []
    end
  end
end
