defmodule Tube.TelemetryTest do
  # The contract of Tube.Telemetry, event by event, and the logger that uses it.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir

  setup_all do
    run_dir = create()
    vm = VM.start(run_dir: run_dir, domid: 7)
    # Only the test reads the log of this VM.
    VM.call(vm, Logger, :remove_backend, [:console])

    on_exit(fn ->
      VM.stop(vm)
      remove(run_dir)
    end)

    %{nock: vm, run_dir: run_dir}
  end

  # Each test has a process of its own there, whose end closes its tubes.
  setup %{nock: vm} do
    on_exit(fn ->
      VM.end_process(vm, :main)
      VM.call(vm, :telemetry, :detach, [__MODULE__])
      VM.call(vm, :telemetry, :detach, [Tube.Logger])
      VM.call(vm, :logger, :remove_handler, [__MODULE__])
    end)
  end

  test "a tube from handshake to end, at both sides", %{run_dir: run_dir, nock: nock} do
    tip = VM.start!(run_dir: run_dir, domid: 5)

    VM.run(tip, fn ->
      attach("both sides")
      {:ok, listener} = Tube.listen(service: "both sides", active: false, linger: 1_000)
      Process.put(:listener, listener)
    end)

    VM.run(nock, fn ->
      attach("both sides")
      {:ok, tube} = Tube.open(5, service: "both sides", tid: 9, active: false, linger: 1_000)
      Process.put(:tube, tube)
      :ok = Tube.send(tube, "four")
    end)

    VM.run(tip, fn ->
      {:ok, tube} = Tube.accept(Process.get(:listener), 5_000)
      {:ok, "four"} = Tube.recv(tube, 5_000)
      Process.put(:tube, tube)
    end)

    closing = VM.async(nock, fn -> Tube.close(Process.get(:tube)) end)
    {:error, :closed} = VM.run(tip, fn -> Tube.recv(Process.get(:tube), 5_000) end)
    :ok = Task.await(closing)

    for {vm, role, domid, peer, sent, received} <- [
          {nock, :nock, 7, 5, 1, 0},
          {tip, :tip, 5, 7, 0, 1}
        ] do
      events = VM.run(vm, fn -> events_until([:tube, :connection, :stop]) end)

      assert [
               {[:tube, :handshake, :start], begun, metadata},
               {[:tube, :handshake, :stop], shaken, metadata},
               {[:tube, :connection, :start], opened, metadata},
               {[:tube, :connection, :stop], ended, last}
             ] = events

      assert %{role: ^role, domid: ^domid, peer: ^peer, tid: 9, service: "both sides", span: span} =
               metadata

      assert is_reference(span)
      assert last == Map.put(metadata, :reason, :closed)

      assert Map.keys(begun) == [:monotonic_time, :system_time]
      assert shaken.duration == shaken.monotonic_time - begun.monotonic_time
      assert Map.keys(opened) == [:monotonic_time, :system_time]
      assert ended.duration == ended.monotonic_time - opened.monotonic_time
      assert %{send_cnt: ^sent, recv_cnt: ^received, full_waits: 0, bells: _} = ended
    end
  end

  test "a handshake that fails says why", %{nock: nock} do
    VM.run(nock, fn ->
      attach("nobody")
      {:error, :timeout} = Tube.open(5, service: "nobody", timeout: 50)

      assert [
               {[:tube, :handshake, :start], _, _},
               {[:tube, :handshake, :exception], %{duration: duration}, metadata}
             ] = events_until([:tube, :handshake, :exception])

      assert %{kind: :error, reason: :timeout, stacktrace: [], role: :nock} = metadata
      assert System.convert_time_unit(duration, :native, :millisecond) in 50..5_000
    end)
  end

  test "a full ring, once for each message that finds no room", %{nock: nock} do
    VM.run(nock, fn ->
      {:ok, listener} = Tube.listen(service: "full", active: false, ring: 4096)
      {:ok, nock} = Tube.open(7, service: "full", active: false, linger: 100)
      {:ok, tip} = Tube.accept(listener, 5_000)
      attach("full")

      sent = Stream.repeatedly(fn -> Tube.send(nock, :binary.copy("f", 700), 0) end)
      assert Enum.find_index(sent, &(&1 == {:error, :busy})) in 4..6
      assert_receive {[:tube, :ring, :full], %{size: 700, monotonic_time: _}, metadata}, 1_000
      assert %{role: :nock, peer: 7, service: "full", span: _} = metadata

      # A send that is woken several times before it completes causes one event.
      waiting = Task.async(fn -> Tube.send(nock, :binary.copy("w", 10_000)) end)
      assert_receive {[:tube, :ring, :full], %{size: 10_000}, ^metadata}, 1_000
      drain_until(tip, :binary.copy("w", 10_000))
      :ok = Task.await(waiting)
      refute_received {[:tube, :ring, :full], _, _}
    end)
  end

  test "a full ring of a tube with mode: :port", %{nock: nock} do
    VM.run(nock, fn ->
      {:ok, _listener} = Tube.listen(service: "full port", active: false, ring: 4096)
      {:ok, nock} = Tube.open(7, service: "full port", active: false, mode: :port, linger: 100)
      attach("full port")
      for _ <- 1..9, do: send(nock.pid, {self(), {:command, :binary.copy("c", 900)}})
      assert_receive {[:tube, :ring, :full], %{size: 900}, %{role: :nock}}, 1_000
      {:ok, _} = Tube.info(nock)
      refute_received {[:tube, :ring, :full], _, _}
    end)
  end

  test "a peer that dies is lost, and then the tube ends for that reason", %{
    run_dir: run_dir,
    nock: nock
  } do
    tip = VM.start!(run_dir: run_dir, domid: 4)
    VM.run(tip, fn -> {:ok, _} = Tube.listen(service: "mortal", active: false) end)

    VM.run(nock, fn ->
      attach("mortal")
      {:ok, tube} = Tube.open(4, service: "mortal")
      Process.put(:tube, tube)
      events_until([:tube, :connection, :start])
    end)

    VM.kill9(tip)

    VM.run(nock, fn ->
      assert_receive {[:tube, :peer, :lost], %{duration: duration}, %{reason: reason}}, 5_000
      assert duration > 0 and reason in [:peer_down, :peer_domain_gone]
      assert_receive {[:tube, :connection, :stop], %{send_cnt: 0}, %{reason: ^reason}}, 5_000
    end)
  end

  test "an owner that ends closes its tube, with reason owner_down", %{nock: nock} do
    VM.run(nock, fn ->
      {:ok, _listener} = Tube.listen(service: "owned", active: false)
      attach("owned")

      {owner, monitor} =
        spawn_monitor(fn -> {:ok, _} = Tube.open(7, service: "owned", linger: 100) end)

      assert_receive {:DOWN, ^monitor, :process, ^owner, :normal}, 5_000
      assert_receive {[:tube, :connection, :stop], _, %{role: :nock, reason: :owner_down}}, 5_000
    end)
  end

  test "without handlers the module :telemetry is not even loaded", %{run_dir: run_dir} do
    alone = VM.start!(run_dir: run_dir, domid: 3)

    VM.run(alone, fn ->
      {:ok, listener} = Tube.listen(active: false, linger: 100)
      {:ok, tube} = Tube.open(3, active: false, linger: 100)
      {:ok, _tip} = Tube.accept(listener, 5_000)
      :ok = Tube.close(tube)
      refute :code.is_loaded(:telemetry)
    end)
  end

  test "each event of the contract is documented, and no other" do
    {:docs_v1, _, _, _, %{"en" => text}, _, _} = docs(Tube.Telemetry)
    documented = Regex.scan(~r/\* `(\[:tube, :\w+, :\w+\])`/, text, capture: :all_but_first)
    assert List.flatten(documented) == Enum.map(Tube.Telemetry.events(), &inspect/1)
  end

  describe "the logger" do
    test "logs the events of its level, with metadata", %{nock: nock} do
      log =
        VM.run(nock, fn ->
          :ok = Tube.Logger.attach(:debug)
          assert {:error, :already_exists} = Tube.Logger.attach(:debug)
          log_of_two_tubes()
        end)

      assert log =~ ~r/debug 7:303 -> 7 7 logged Tube 7:303 -> 7 "logged" opening/
      assert log =~ ~r/debug .* incoming request/
      assert log =~ ~r/info .* open after \d+ ms/

      assert log =~
               ~r/info .* ended: closed; sent 1 messages \(3 bytes\), received 0 \(0 bytes\)/

      assert log =~ ~r/error .* not opened: timed out/
    end

    test "is quiet below its level, and when detached", %{nock: nock} do
      VM.run(nock, fn ->
        :ok = Tube.Logger.attach(:error)
        log = log_of_two_tubes()
        assert log =~ "not opened: "
        refute log =~ "open after"
        :ok = Tube.Logger.detach()
        assert {:error, :not_found} = Tube.Logger.detach()
        assert log_of_two_tubes() == ""
      end)
    end

    test "levels" do
      assert_raise ArgumentError,
                   ~r/invalid level :loud: allowed is :error, :info or :debug/,
                   fn ->
                     Tube.Logger.attach(:loud)
                   end
    end
  end

  ## In the other VMs

  @doc false
  def attach(service) do
    test = self()

    # Tubes of earlier tests may still be ending.
    handler = fn event, measurements, metadata, _ ->
      if metadata.service == service, do: send(test, {event, measurements, metadata})
    end

    apply(:telemetry, :attach_many, [__MODULE__, Tube.Telemetry.events(), handler, nil])
  end

  @doc false
  def events_until(name) do
    receive do
      {[:tube | _] = event, measurements, metadata} ->
        rest = if event == name, do: [], else: events_until(name)
        [{event, measurements, metadata} | rest]
    after
      5_000 -> raise "#{inspect(name)} did not come"
    end
  end

  @doc false
  def drain_until(tube, last) do
    {:ok, data} = Tube.recv(tube, 5_000)
    if data != last, do: drain_until(tube, last)
  end

  # The log lines of a tube that opens and closes, and of one that fails to open.
  @doc false
  def log_of_two_tubes do
    :ok = :logger.add_handler(__MODULE__, __MODULE__, %{config: self()})
    listener = Process.get(:listener) || elem(Tube.listen(service: "logged", active: false), 1)
    Process.put(:listener, listener)
    {:ok, nock} = Tube.open(7, service: "logged", tid: 303, active: false, linger: 100)
    {:ok, tip} = Tube.accept(listener, 5_000)
    monitors = for tube <- [nock, tip], do: Process.monitor(tube.pid)
    :ok = Tube.send(nock, "log")
    :ok = Tube.close(nock)
    Tube.close(tip)
    for monitor <- monitors, do: assert_receive({:DOWN, ^monitor, _, _, _}, 5_000)
    {:error, :timeout} = Tube.open(6, service: "logged", timeout: 50)
    :ok = :logger.remove_handler(__MODULE__)
    lines()
  end

  # A handler of :logger. It runs in the logging process, so its message comes before the :DOWN of
  # that process.
  @doc false
  def log(%{level: level, msg: {:string, text}, meta: %{service: "logged"} = meta}, %{
        config: test
      }) do
    tags = [meta.tube, meta.peer_domid, meta.service]
    send(test, {:line, "#{level} #{Enum.join(tags, " ")} #{text}\n"})
  end

  def log(_report, _config), do: :ok

  defp lines do
    receive do
      {:line, line} -> line <> lines()
    after
      0 -> ""
    end
  end

  defp docs(module) do
    {^module, beam, _file} = :code.get_object_code(module)
    {:ok, {^module, [{~c"Docs", chunk}]}} = :beam_lib.chunks(beam, [~c"Docs"])
    :erlang.binary_to_term(chunk)
  end
end
