defmodule Tube.HandlerTest do
  # Handlers under their supervisor, in a VM that opens tubes to itself.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir

  # Sends the arguments of each callback to the test, whose pid is the handler's state.
  defmodule Reporter do
    use Tube.Test.VM
    use Tube.Handler

    @impl true
    def handle_connection(tube, test) do
      {:ok, peer} = Tube.peer(tube)
      send(test, {:connected, self(), peer})
      {:continue, test}
    end

    @impl true
    def handle_data("crash", _tube, _test), do: raise("on request")
    def handle_data("nonsense", _tube, _test), do: :nonsense
    def handle_data("close", _tube, test), do: {:close, test}
    def handle_data("fail", _tube, test), do: {:error, :on_request, test}
    def handle_data("limit " <> ms, _tube, test), do: {:continue, test, String.to_integer(ms)}

    def handle_data("hold", _tube, test) do
      send(test, {:holding, self()})
      receive do: (:go -> {:continue, test})
    end

    def handle_data(data, tube, test) do
      :ok = Tube.send(tube, String.upcase(data))
      {:continue, test}
    end

    @impl true
    def handle_info({:say, text}, tube, test) do
      :ok = Tube.send(tube, text)
      {:continue, test}
    end

    @impl true
    def handle_timeout(tube, test) do
      :ok = Tube.send(tube, "nothing came")
      {:close, test}
    end

    @impl true
    def handle_close(tube, test), do: send(test, {:close, tube.pid, self()})

    @impl true
    def handle_error(reason, _tube, test), do: send(test, {:error, reason, self()})

    @impl true
    def handle_shutdown(tube, test) do
      :ok = Tube.send(tube, "good bye")
      send(test, {:shutdown, self()})
    end
  end

  defmodule Default do
    use Tube.Test.VM
    use Tube.Handler
  end

  defmodule NoHandler do
  end

  setup_all do
    run_dir = create()
    vm = VM.start(run_dir: run_dir, domid: 5, modules: [Reporter, Default])
    VM.call(vm, Logger, :remove_backend, [:console])

    on_exit(fn ->
      VM.stop(vm)
      remove(run_dir)
    end)

    %{vm: vm}
  end

  setup %{vm: vm} do
    on_exit(fn -> VM.end_process(vm, :main, :shutdown) end)
  end

  test "each tube has a process of its own, which knows its peer", %{vm: vm} do
    VM.run(vm, fn ->
      supervisor = serve()
      [a, b] = for _ <- 1..2, do: open()
      assert_receive {:connected, first, %{domid: 5, service: "reporter"}}, 2_000
      assert_receive {:connected, second, %{domid: 5, tid: _}}, 2_000
      assert first != second

      assert Enum.sort(Tube.Handler.Supervisor.connections(supervisor)) ==
               Enum.sort([first, second])

      for {tube, text} <- [{a, "one"}, {b, "two"}], do: :ok = Tube.send(tube, text)
      assert {:ok, "ONE"} = Tube.recv(a, 1_000)
      assert {:ok, "TWO"} = Tube.recv(b, 1_000)

      send(first, {:say, "on my own account"})
      received = for tube <- [a, b], do: Tube.recv(tube, 200)
      assert Enum.sort(received) == [{:error, :timeout}, {:ok, "on my own account"}]
    end)
  end

  test "many messages stay in order, and no more than :active wait in the mailbox", %{vm: vm} do
    VM.run(vm, fn ->
      serve(active: 3)
      tube = open()
      assert_receive {:connected, pid, _}, 2_000
      :ok = Tube.send(tube, "hold")
      assert_receive {:holding, ^pid}, 1_000
      for n <- 1..50, do: :ok = Tube.send(tube, "m#{n}")

      # The message in progress is one of the three, and :tube_passive may be there too.
      assert elem(Process.info(pid, :message_queue_len), 1) in 0..3
      send(pid, :go)
      for n <- 1..50, do: assert({:ok, "M#{n}"} == Tube.recv(tube, 1_000))
      assert elem(Process.info(pid, :message_queue_len), 1) in 0..3
    end)
  end

  describe "an end" do
    test "by the peer", %{vm: vm} do
      VM.run(vm, fn ->
        serve()
        tube = open()
        assert_receive {:connected, pid, _}, 2_000
        monitor = Process.monitor(pid)
        :ok = Tube.send(tube, "last")
        :ok = Tube.shutdown(tube, :write)
        assert_receive {:close, _tube, ^pid}, 1_000
        assert {:ok, "LAST"} = Tube.recv(tube, 1_000)
        assert {:error, :closed} = Tube.recv(tube, 1_000)
        assert_receive {:DOWN, ^monitor, :process, ^pid, :normal}, 1_000
      end)
    end

    test "by the results {:close, _} and {:error, _, _}", %{vm: vm} do
      VM.run(vm, fn ->
        serve()

        for {word, callback} <- [{"close", :close}, {"fail", :error}] do
          tube = open()
          assert_receive {:connected, pid, _}, 2_000
          monitor = Process.monitor(pid)
          :ok = Tube.send(tube, "answered all the same")
          :ok = Tube.send(tube, word)
          assert {:ok, "ANSWERED" <> _} = Tube.recv(tube, 1_000)
          assert {:error, :closed} = Tube.recv(tube, 1_000)
          assert_receive {^callback, reason, ^pid}, 1_000
          if callback == :error, do: assert(reason == :on_request)
          assert_receive {:DOWN, ^monitor, :process, ^pid, :normal}, 1_000
          refute_received {_, _, ^pid}
        end
      end)
    end

    test "by a time limit, which each message cancels", %{vm: vm} do
      VM.run(vm, fn ->
        serve(active: :once)
        tube = open()
        :ok = Tube.send(tube, "limit 50")
        assert {:ok, "nothing came"} = Tube.recv(tube, 2_000)
        assert {:error, :closed} = Tube.recv(tube, 2_000)

        tube = open()
        :ok = Tube.send(tube, "limit 500")
        :ok = Tube.send(tube, "in time")
        assert {:ok, "IN TIME"} = Tube.recv(tube, 1_000)
        assert {:error, :timeout} = Tube.recv(tube, 700)
      end)
    end

    test "by a crash or an invalid result, which does not affect other connections", %{vm: vm} do
      VM.run(vm, fn ->
        serve()
        other = open()

        for {word, text} <- [
              {"crash", "on request"},
              {"nonsense", "returned :nonsense: allowed are {:continue"}
            ] do
          tube = open()
          :ok = Tube.send(tube, word)
          assert_receive {:error, %{message: message}, _pid}, 2_000
          assert message =~ text
          assert {:error, :closed} = Tube.recv(tube, 2_000)
        end

        :ok = Tube.send(other, "still here")
        assert {:ok, "STILL HERE"} = Tube.recv(other, 1_000)
      end)
    end
  end

  test "a listener that ends is restarted, and connections continue", %{vm: vm} do
    VM.run(vm, fn ->
      supervisor = serve()
      tube = open()
      assert_receive {:connected, _pid, _}, 2_000

      {:listener, listener, _, _} =
        supervisor |> Supervisor.which_children() |> List.keyfind(:listener, 0)

      monitor = Process.monitor(listener)
      Process.exit(listener, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^listener, :killed}, 1_000
      later = open()
      assert_receive {:connected, _pid, _}, 2_000

      for one <- [tube, later] do
        :ok = Tube.send(one, "all well")
        assert {:ok, "ALL WELL"} = Tube.recv(one, 1_000)
      end
    end)
  end

  test "at max_connections the next tube waits until one ends", %{vm: vm} do
    VM.run(vm, fn ->
      serve(max_connections: 2)
      [first, _second] = for _ <- 1..2, do: open()
      for _ <- 1..2, do: assert_receive({:connected, _, _}, 2_000)
      third = open()
      :ok = Tube.send(third, "my turn")
      assert {:error, :timeout} = Tube.recv(third, 200)
      :ok = Tube.close(first)
      assert {:ok, "MY TURN"} = Tube.recv(third, 2_000)
    end)
  end

  describe "stopping" do
    test "handles the messages that have arrived, then closes", %{vm: vm} do
      VM.run(vm, fn ->
        supervisor = serve(active: :once)
        Process.unlink(supervisor)
        tube = open()
        assert_receive {:connected, pid, _}, 2_000
        :ok = Tube.send(tube, "hold")
        assert_receive {:holding, ^pid}, 1_000
        for n <- 1..20, do: :ok = Tube.send(tube, "m#{n}")
        stopping = Task.async(fn -> Supervisor.stop(supervisor, :shutdown) end)
        # The listener ends before the connections do.
        await_no_listener()
        send(pid, :go)
        for n <- 1..20, do: assert({:ok, "M#{n}"} == Tube.recv(tube, 1_000))
        assert {:ok, "good bye"} = Tube.recv(tube, 1_000)
        assert {:error, :closed} = Tube.recv(tube, 1_000)
        assert_receive {:shutdown, ^pid}, 1_000
        assert :ok = Task.await(stopping)
      end)
    end

    test "has a time limit, even if a callback blocks", %{vm: vm} do
      VM.run(vm, fn ->
        supervisor = serve(shutdown: 50)
        Process.unlink(supervisor)
        tube = open()
        assert_receive {:connected, pid, _}, 2_000
        monitor = Process.monitor(pid)
        :ok = Tube.send(tube, "hold")
        assert_receive {:holding, ^pid}, 1_000
        :ok = Supervisor.stop(supervisor, :shutdown)
        assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}, 1_000
        assert {:error, :closed} = Tube.recv(tube, 2_000)
      end)
    end
  end

  test "a tube that closes while its count is used up is closed for the handler too", %{vm: vm} do
    VM.run(vm, fn ->
      serve(active: 1)
      tube = open()
      assert_receive {:connected, pid, _}, 2_000
      [its_tube] = Tube.list() -- [tube]
      monitor = Process.monitor(its_tube.pid)
      :ok = Tube.send(tube, "hold")
      assert_receive {:holding, ^pid}, 1_000
      :ok = Tube.close(tube)
      # The tube's process has ended, so nothing sends the end.
      assert_receive {:DOWN, ^monitor, :process, _pid, :normal}, 2_000
      send(pid, :go)
      assert_receive {:close, _tube, ^pid}, 1_000
    end)
  end

  test "a handler without callbacks of its own ignores all messages", %{vm: vm} do
    VM.run(vm, fn ->
      {:ok, supervisor} = Tube.Handler.Supervisor.start_link(handler: Default, service: "default")
      {:ok, tube} = Tube.open(5, active: false)
      :ok = Tube.send(tube, "into the void")
      :ok = Tube.shutdown(tube, :write)
      assert {:error, :closed} = Tube.recv(tube, 2_000)
      Supervisor.stop(supervisor)
    end)
  end

  test "bad options" do
    for {options, parts} <- [
          {:echo, [":echo", "keyword list"]},
          {[], [":handler is missing"]},
          {[handler: "Reporter"], [":handler", "\"Reporter\"", "a module"]},
          {[handler: No.Such.Module], ["No.Such.Module", "no such module"]},
          {[handler: NoHandler], ["NoHandler", "no callback"]},
          {[handler: Reporter, active: false], [":active", "false", ":once", "32767"]},
          {[handler: Reporter, max_connections: 0], [":max_connections", "0", "positive"]},
          {[handler: Reporter, shutdown: :never], [":shutdown", ":never", "milliseconds"]},
          {[handler: Reporter, mode: :port], [":port", ":mode", ":tube"]},
          {[handler: Reporter, service: :reporter], [":service", ":reporter"]},
          {[handler: Reporter, colour: :red], [":colour", "allowed are"]}
        ] do
      %ArgumentError{message: message} = catch_error(Tube.Handler.Supervisor.child_spec(options))
      for part <- parts, do: assert(message =~ part, "#{inspect(part)} is not in: #{message}")
    end

    assert %{id: {Tube.Handler.Supervisor, "reporter"}, type: :supervisor} =
             Tube.Handler.Supervisor.child_spec(handler: Reporter, service: "reporter")
  end

  @doc false
  def serve(options \\ []) do
    options =
      Keyword.merge([handler: Reporter, service: "reporter", state: self(), linger: 500], options)

    {:ok, supervisor} = Tube.Handler.Supervisor.start_link(options)
    supervisor
  end

  @doc false
  def open do
    {:ok, tube} = Tube.open(5, service: "reporter", active: false, linger: 500)
    tube
  end

  @doc false
  def await_no_listener do
    Tube.Test.Eventually.true!(fn ->
      case Tube.listen(service: "reporter") do
        {:ok, _ours} -> true
        {:error, :eexist} -> false
      end
    end)
  end
end
