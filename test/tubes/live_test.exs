defmodule Tube.TubesTest do
  # The inspection program on live tubes of two VMs: what it shows is what they have.
  use ExUnit.Case, async: true
  use Tube.Test.VM

  import Tube.Test.Eventually, only: [true!: 1]
  import Tube.Test.RunDir

  @root Path.expand("../..", __DIR__)
  @program Path.join(@root, "bin/tubes")

  setup :fresh_run_dir

  setup_all do
    # Builds it, if nobody has yet: minutes, once.
    {out, status} = System.cmd(@program, ["--version"], stderr_to_stdout: true)
    assert {status, out =~ "handshake version 1"} == {0, true}, out
    :ok
  end

  @moduletag timeout: 300_000

  defp tubes(run_dir, args, opts \\ []) do
    socket = Keyword.get(opts, :socket, "#{run_dir}/dom0/xenstored.sock")
    System.cmd(@program, ["--socket", socket | args], stderr_to_stdout: true)
  end

  # Its lines come as messages of a port.
  defp watch(run_dir) do
    socket = "#{run_dir}/dom0/xenstored.sock"
    args = ["--socket", socket, "watch", "--json"]
    options = [:binary, :exit_status, line: 4096, args: args]
    port = Port.open({:spawn_executable, @program}, options)
    {:os_pid, pid} = Port.info(port, :os_pid)
    on_exit(fn -> System.cmd("kill", ["#{pid}"], stderr_to_stdout: true) end)
    port
  end

  defp await(port, event, words) do
    receive do
      {^port, {:data, {:eol, line}}} ->
        if line =~ ~s("event":"#{event}") do
          for word <- words, do: assert(line =~ word)
          line
        else
          await(port, event, words)
        end

      {^port, {:exit_status, status}} ->
        flunk("watch ended with status #{status}")
    after
      15_000 -> flunk("no #{event}")
    end
  end

  defp pair(run_dir) do
    tip = VM.start!(run_dir: run_dir, domid: 5)
    nock = VM.start!(run_dir: run_dir, domid: 7)

    VM.run(tip, fn ->
      {:ok, listener} = Tube.listen(service: "chat.v2", active: false)
      spawn_link(fn -> accept(listener) end)
    end)

    {tip, nock}
  end

  defp accept(listener) do
    {:ok, _tube} = Tube.accept(listener, :infinity)
    accept(listener)
  end

  defp open(nock) do
    VM.run(nock, fn ->
      {:ok, tube} = Tube.open(5, service: "chat.v2", active: false)
      Process.put(:tube, tube)
      :ok
    end)
  end

  test "listed and shown, from domain 0 and from a domain of its own", %{run_dir: run_dir} do
    {_tip, nock} = pair(run_dir)
    :ok = open(nock)

    assert {list, 0} = tubes(run_dir, ["list"])
    assert [header, line] = String.split(list, "\n", trim: true)
    assert String.split(header) == ~w(NOCK TIP SERVICE TID STATE RING EVTCH TX-REF RX-REF AGE)

    assert ["7", "5", "chat.v2", _tid, "connected", "64K", port, tx, rx, age] = String.split(line)

    assert age =~ ~r/^\d+s$/
    for number <- [port, tx, rx], do: assert(String.to_integer(number) > 0)

    assert {json, 0} = tubes(run_dir, ["list", "--json"])
    assert json =~ ~s("nock":7,"tip":5,)
    assert json =~ ~s("service":"chat.v2","state":"connected")
    assert json =~ ~s("findings":[])

    for who <- ["5", "dom7"] do
      assert {shown, 0} = tubes(run_dir, ["show", who])
      assert shown =~ "4 Connected"
      refute shown =~ "!"
    end

    assert {out, 0} = tubes(run_dir, ["show", "5"])
    assert out =~ "domain 5: takes tubes (version 1): chat.v2\n"

    # Not as domain 0: its own tubes, and a word on that.
    assert {own, 0} = tubes(run_dir, ["list"], socket: "#{run_dir}/dom7/xenstored.sock")
    assert own =~ ~r/^7 +5 +chat.v2 .* connected/m
    assert own =~ "not as domain 0"
  end

  test "rates of a tube that is busy, for as long as somebody looks", %{run_dir: run_dir} do
    {_tip, nock} = pair(run_dir)
    :ok = open(nock)

    # A message each ten milliseconds, which nobody takes: the ring has room for all of them.
    VM.run(
      nock,
      fn ->
        tube = Process.get(:tube)
        {:ok, timer} = :timer.apply_interval(10, Tube, :send, [tube, "0123456789"])
        Process.put(:timer, timer)
      end
    )

    assert {list, 0} = tubes(run_dir, ["list", "--stats"])
    assert [header, line] = String.split(list, "\n", trim: true)
    assert String.split(header) == ~w(NOCK TIP SERVICE TID STATE RING MSG/S BYTES/S AGE)

    assert ["7", "5", "chat.v2", _tid, "connected", "64K", messages, bytes, _age] =
             String.split(line)

    assert {messages, ""} = Float.parse(messages)
    assert messages > 1 and messages <= 150
    assert bytes =~ ~r/^\d/
    true!(fn -> VM.run(nock, fn -> :sys.get_state(Tube.Stats).watched end) == nil end)
  end

  test "watched through an opening, a close and a kill", %{run_dir: run_dir} do
    {tip, nock} = pair(run_dir)
    :ok = open(nock)
    port = watch(run_dir)
    # From here on nothing is missed.
    await(port, "present", [~s("nock":7,"tip":5)])

    :ok = open(nock)
    await(port, "opened", [~s("nock":7,"tip":5)])
    await(port, "connected", [~s("service":"chat.v2")])
    VM.run(nock, fn -> Tube.close(Process.get(:tube)) end)
    await(port, "closing", [])
    await(port, "closed", [])

    :ok = open(nock)
    await(port, "connected", [])
    :ok = VM.kill9(tip)
    await(port, "closed", [])
    assert {"NOCK" <> _, 0} = tubes(run_dir, ["list"])
  end

  test "what a killed VM leaves at a stopped one is seen, and reaped", %{run_dir: run_dir} do
    {tip, nock} = pair(run_dir)
    :ok = open(nock)
    port = watch(run_dir)
    await(port, "present", [])
    :ok = VM.signal(nock, "STOP")
    :ok = VM.kill9(tip)
    assert await(port, "stale", []) =~ "does not exist"

    assert {list, 0} = tubes(run_dir, ["list"])
    assert list =~ "stale!"
    assert {dry, 0} = tubes(run_dir, ["reap"])
    assert dry =~ "would remove /local/domain/7/data/nock/5/"
    assert {list, 0} = tubes(run_dir, ["list"])
    assert list =~ "stale!"

    assert {doctor, 0} = tubes(run_dir, ["doctor"])
    assert doctor =~ "left over by the dead"

    assert {out, 0} = tubes(run_dir, ["reap", "--yes", "--settle", "0.1"])
    assert out =~ "removed /local/domain/7/data/nock/5/"
    await(port, "closed", [])
    assert {out, 0} = tubes(run_dir, ["reap"])
    assert out =~ "nothing is left over"
    :ok = VM.signal(nock, "CONT")
  end
end
