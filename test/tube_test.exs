defmodule TubeTest do
  # The public API in one VM that opens tubes to itself. Tests of two VMs are in test/two_vms.
  use Tube.Test.OneVM, async: false

  describe "bad input" do
    test "options: the error names the key, the value and what is allowed" do
      for {fun, parts} <- [
            {fn -> Tube.open(5, colour: :red) end, [":colour", ":red", "open", ":service"]},
            {fn -> Tube.open(5, active: 0) end, [":active", "0", "from 1 to 32767"]},
            {fn -> Tube.open(5, tid: -1) end, [":tid", "-1", "from 0 to 4294967295"]},
            {fn -> Tube.open(5, ring: 5000) end, [":ring", "5000", "power of two", "4096"]},
            {fn -> Tube.open(5, service: :echo) end,
             [":service", ":echo", "string of 1 to 64 bytes"]},
            {fn -> Tube.open(5, service: "") end, [":service", "string of 1 to 64 bytes"]},
            {fn -> Tube.open(5, timeout: :soon) end, [":timeout", ":soon", "integer from 1"]},
            {fn -> Tube.open(5, max_message: 0) end, [":max_message", "0", "from 1 to"]},
            {fn -> Tube.open(5, [:active]) end, ["[:active]", "keyword list"]},
            {fn -> Tube.open(5, backlog: 3) end, [":backlog", "open", "allowed are"]},
            {fn -> Tube.open(-1) end, ["-1", "0 to 32751"]},
            {fn -> Tube.open(0x7FF0) end, ["32752", "0 to 32751"]},
            {fn -> Tube.open("5") end, ["\"5\"", "domid", "0 to 32751"]},
            {fn -> Tube.listen(peers: []) end, [":peers", "[]", ":any"]},
            {fn -> Tube.listen(peers: [70_000]) end, [":peers", "70000", "32751"]},
            {fn -> Tube.listen(mode: :stream) end, [":mode", ":stream", ":tube or :port"]}
          ] do
        %ArgumentError{message: message} = catch_error(fun.())
        for part <- parts, do: assert(message =~ part, "#{inspect(part)} is not in: #{message}")
      end
    end

    test "a value that is not a tube, and a tube of another VM", %{vm: vm} do
      assert_raise ArgumentError, ~r/:nothing is not a tube/, fn -> Tube.send(:nothing, "x") end
      assert_raise ArgumentError, ~r/is not a tube/, fn -> Tube.recv(%{id: 1}) end

      elsewhere = %Tube{pid: :erlang.list_to_pid(~c"<0.1.0>"), port: nil, id: 1}
      assert {:error, :closed} = VM.run(vm, fn -> Tube.send(elsewhere, "x") end)
    end

    test "time limits", %{vm: vm} do
      pair = VM.run(vm, fn -> pair() end)

      assert_raise ArgumentError, ~r/invalid timeout -1: allowed is an integer from 0/, fn ->
        VM.run(vm, fn -> Tube.recv(elem(pair, 0), -1) end)
      end
    end
  end

  test "domid", %{vm: vm} do
    assert VM.run(vm, fn -> Tube.domid() end) == {:ok, 5}
  end

  test "use after close", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair()
      assert :ok = Tube.close(nock)
      assert {:error, :closed} = Tube.send(nock, "x")
      assert {:error, :closed} = Tube.recv(nock)
      assert {:error, :closed} = Tube.close(nock)
      assert {:error, :closed} = Tube.setopts(nock, active: true)
      assert {:error, :closed} = Tube.info(nock)
      assert {:error, :closed} = Tube.controlling_process(nock, self())
      assert {:error, :closed} = Tube.recv(tip, 1_000)
    end)
  end

  test "only the owner receives, sets options, closes and hands over; anyone sends", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair()

      Task.async(fn ->
        assert {:error, :not_owner} = Tube.recv(nock)
        assert {:error, :not_owner} = Tube.setopts(nock, active: true)
        assert {:error, :not_owner} = Tube.close(nock)
        assert {:error, :not_owner} = Tube.controlling_process(nock, self())
        assert :ok = Tube.send(nock, "anyone")
      end)
      |> Task.await()

      assert {:ok, "anyone"} = Tube.recv(tip, 1_000)
    end)
  end

  test "iodata", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair()
      :ok = Tube.send(nock, ["a", [?b, "c"] | "d"])
      assert {:ok, "abcd"} = Tube.recv(tip, 1_000)
      assert_raise ArgumentError, fn -> Tube.send(nock, [:not, :iodata]) end
    end)
  end

  test "close delivers what was sent before", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair()
      for n <- 1..20, do: :ok = Tube.send(nock, "#{n}")
      closing = Task.async(fn -> receive(do: (:go -> Tube.close(nock))) end)
      :ok = Tube.controlling_process(nock, closing.pid)
      send(closing.pid, :go)
      for n <- 1..20, do: assert({:ok, "#{n}"} == Tube.recv(tip, 1_000))
      assert {:error, :closed} = Tube.recv(tip, 1_000)
      assert :ok = Task.await(closing)
    end)
  end

  test "a peer that does not receive cannot delay a close beyond linger", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair(linger: 200)
      :ok = Tube.send(nock, "left in the ring")
      assert :ok = Tube.close(nock)
      # The sent message is still there.
      assert {:ok, "left in the ring"} = Tube.recv(tip, 1_000)
      assert {:error, :closed} = Tube.recv(tip, 1_000)
    end)
  end

  test "controlling_process moves messages that wait in the mailbox", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair()
      :ok = Tube.setopts(tip, active: true)
      for n <- 1..3, do: :ok = Tube.send(nock, "#{n}")
      # When the last of the three arrives, all are in this mailbox.
      assert_receive {:tube, ^tip, "3"} = last, 1_000
      send(self(), last)

      new_owner =
        Task.async(fn ->
          for n <- ["1", "2", "3", "4"], do: assert_receive({:tube, ^tip, ^n}, 1_000)
          :ok
        end)

      :ok = Tube.controlling_process(tip, new_owner.pid)
      :ok = Tube.send(nock, "4")
      assert :ok = Task.await(new_owner)
      refute_received {:tube, _, _}
    end)
  end

  test "list and info", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair(service: "list me")
      assert [] == [nock, tip] -- Tube.list()
      me = self()
      assert {:ok, %{role: :nock, peer: 5, service: "list me", owner: ^me}} = Tube.info(nock)
      assert {:ok, %{role: :tip, peer: 5, state: 4}} = Tube.info(tip)
      :ok = Tube.close(nock)
    end)
  end

  describe "mode: :port" do
    test "command, delivery, connect, close", %{vm: vm} do
      VM.run(vm, fn ->
        {nock, tip} = pair(mode: :port, active: true)
        send(nock.pid, {self(), {:command, ["to ", "the tip"]}})
        pid = tip.pid
        assert_receive {^pid, {:data, "to the tip"}}, 1_000
        assert pid in elem(Process.info(self(), :links), 1)

        new_owner =
          Task.async(fn ->
            assert_receive {^pid, {:data, "again"}}, 1_000
            send(pid, {self(), :close})
            assert_receive {^pid, :closed}, 6_000
          end)

        send(pid, {self(), {:connect, new_owner.pid}})
        assert_receive {^pid, :connected}, 1_000
        send(nock.pid, {self(), {:command, "again"}})
        Task.await(new_owner, 10_000)
      end)
    end

    test "commands beyond the ring wait in order, and close sends them all", %{vm: vm} do
      VM.run(vm, fn ->
        {nock, tip} = pair(mode: :port, ring: 4096)
        big = :binary.copy("z", 1_500)
        for n <- 1..100, do: send(nock.pid, {self(), {:command, [<<n>>, big]}})
        send(nock.pid, {self(), :close})
        for n <- 1..100, do: assert({:ok, <<^n, ^big::binary>>} = Tube.recv(tip, 2_000))
        assert {:error, :closed} = Tube.recv(tip, 2_000)
      end)
    end

    test "commands that nobody receives cannot delay a close beyond linger", %{vm: vm} do
      VM.run(vm, fn ->
        {nock, tip} = pair(mode: :port, ring: 4096, linger: 300)

        for n <- 1..20,
            do: send(nock.pid, {self(), {:command, [<<n>>, :binary.copy("z", 1_500)]}})

        assert :ok = Tube.close(nock)
        # The commands that fit into the ring are there.
        assert {:ok, <<1, "z", _::binary>>} = Tube.recv(tip, 1_000)
      end)
    end

    test "a command over the limit ends its owner with the reason; others are sent", %{vm: vm} do
      VM.run(vm, fn ->
        Process.flag(:trap_exit, true)
        {nock, tip} = pair(mode: :port, max_message: 10)
        send(nock.pid, {self(), {:command, "more than ten bytes"}})
        send(nock.pid, {self(), {:command, "ten bytes."}})
        pid = nock.pid
        assert_receive {:EXIT, ^pid, :emsgsize}, 1_000
        assert {:ok, "ten bytes."} = Tube.recv(tip, 1_000)
      end)
    end

    test "a sender that is not the owner, or an invalid request, gets badsig", %{vm: vm} do
      VM.run(vm, fn ->
        Process.flag(:trap_exit, true)
        {nock, _tip} = pair(mode: :port)
        pid = nock.pid

        {_, other} =
          spawn_monitor(fn ->
            send(pid, {self(), {:command, "x"}})
            receive(do: (:never -> :ok))
          end)

        assert_receive {:DOWN, ^other, _, _, :badsig}, 1_000
        send(pid, {self(), {:command, [:no, :iodata]}})
        assert_receive {:EXIT, ^pid, :badsig}, 1_000
        send(pid, {self(), :nonsense})
        assert_receive {:EXIT, ^pid, :badsig}, 1_000
        assert {:ok, _} = Tube.info(nock)
      end)
    end

    test "the exit reason says why the tube ended", %{vm: vm} do
      VM.run(vm, fn ->
        Process.flag(:trap_exit, true)
        {nock, tip} = pair(mode: :port, active: true)
        :ok = Tube.close(nock)
        pid = tip.pid
        assert_receive {:EXIT, ^pid, :normal}, 6_000
      end)
    end
  end

  @doc false
  def pair(options \\ []) do
    {linger, options} = Keyword.pop(options, :linger, 5_000)
    options = Keyword.merge([active: false, service: "pair", linger: linger], options)
    {:ok, listener} = Tube.listen(options)
    {:ok, nock} = Tube.open(5, options)
    {:ok, tip} = Tube.accept(listener, 5_000)
    {nock, tip}
  end
end
