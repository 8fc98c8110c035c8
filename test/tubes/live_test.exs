defmodule Tube.TubesTest do
  # Runs the inspector on live tubes between two VMs.
  use ExUnit.Case, async: true
  use Tube.Test.VM

  import Tube.Test.Eventually, only: [true!: 1]
  import Tube.Test.RunDir
  alias Tube.Test.Lab
  alias Tube.Test.Node.Spare

  @root Path.expand("../..", __DIR__)
  @program Path.join(@root, "bin/tubes")

  setup :fresh_run_dir

  # In the lab (bin/test-xen) the program is copied to domain 0 and runs there.
  @lab Lab.enter()
  @there "/run/tubes"
  @moduletag timeout: 300_000
  @timeout if @lab, do: 60_000, else: 15_000

  setup_all do
    # The first run builds the program, which takes minutes.
    {out, status} = System.cmd(@program, ["--version"], stderr_to_stdout: true)
    assert {status, out =~ "handshake version 1"} == {0, true}, out
    if @lab, do: for(domid <- [0, 7], do: copy(domid))
    :ok
  end

  # A VM that another test has killed in a guest leaves its nodes until the next VM starts there.
  setup do
    if @lab do
      for domid <- [5, 7, 9], do: Spare.make_way(domid)
      nodes = for domid <- [5, 7, 9], name <- ~w(nock tip tube), do: "#{domid}/data/#{name}"
      Lab.sh(0, "for n in #{Enum.join(nodes, " ")}; do xenstore-rm /local/domain/$n; done; true")
    end

    :ok
  end

  defp copy(domid) do
    target = System.get_env("CARGO_TARGET_DIR", Path.join(@root, "native/target"))
    program = Path.join(target, "release/tubes")
    script = ~s("$0" sh -c "cat >#{@there}; chmod +x #{@there}" <"$1")
    {_out, 0} = System.cmd("sh", ["-c", script, @lab, program], env: in_domain(domid))
  end

  defp in_domain(domid), do: [{"TUBE_DOMID", "#{domid}"}]

  # Runs the program in a domain, by default domain 0.
  defp tubes(run_dir, args, opts \\ []) do
    {program, first, env} = program(run_dir, Keyword.get(opts, :domid, 0))
    System.cmd(program, first ++ args, env: env, stderr_to_stdout: true)
  end

  defp program(run_dir, domid) do
    if @lab,
      do: {@lab, [@there], in_domain(domid)},
      else: {@program, ["--socket", "#{run_dir}/dom#{domid}/xenstored.sock"], []}
  end

  # Starts a port that sends the lines of the program.
  defp watch(run_dir) do
    {program, first, env} = program(run_dir, 0)
    env = for {name, value} <- env, do: {to_charlist(name), to_charlist(value)}
    options = [:binary, :exit_status, line: 4096, args: first ++ ~w(watch --json), env: env]
    port = Port.open({:spawn_executable, program}, options)
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
      @timeout -> flunk("no #{event}")
    end
  end

  defp pair(run_dir, tip \\ 5) do
    tip = VM.start!(run_dir: run_dir, domid: tip)
    nock = VM.start!(run_dir: run_dir, domid: 7)

    VM.run(tip, fn ->
      {:ok, listener} = Tube.listen(service: "chat.v2", active: false, timeout: @timeout)
      spawn_link(fn -> accept(listener) end)
    end)

    {tip, nock}
  end

  defp accept(listener) do
    {:ok, _tube} = Tube.accept(listener, :infinity)
    accept(listener)
  end

  defp open(nock, tip \\ 5) do
    VM.run(nock, fn ->
      {:ok, tube} = Tube.open(tip, service: "chat.v2", active: false, timeout: @timeout)
      Process.put(:tube, tube)
      :ok
    end)
  end

  test "list and show, from domain 0 and from another domain", %{run_dir: run_dir} do
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

    for name <- ["5", "dom7"] do
      assert {shown, 0} = tubes(run_dir, ["show", name])
      assert shown =~ "4 Connected"
      refute shown =~ "!"
    end

    assert {out, 0} = tubes(run_dir, ["show", "5"])
    assert out =~ "domain 5: takes tubes (version 1): chat.v2\n"

    # Another domain sees its own tubes, with a note.
    assert {own, 0} = tubes(run_dir, ["list"], domid: 7)
    assert own =~ ~r/^7 +5 +chat.v2 .* connected/m
    # The note goes to standard error, which the lab does not forward.
    unless @lab, do: assert(own =~ "not running as domain 0")
  end

  @tag :apart
  test "rates of a busy tube, published only while they are wanted", %{run_dir: run_dir} do
    {_tip, nock} = pair(run_dir)
    :ok = open(nock)

    # One message each ten milliseconds. Nobody receives them, but they all fit into the ring.
    VM.run(
      nock,
      fn ->
        tube = Process.get(:tube)
        {:ok, timer} = :timer.apply_interval(10, Tube, :send, [tube, "0123456789"])
        Process.put(:timer, timer)
      end
    )

    assert ["7", "5", "chat.v2", _tid, "connected", "64K", messages, bytes, _age] =
             rates(run_dir, if(@lab, do: 5, else: 1))

    assert {messages, ""} = Float.parse(messages)
    # In a guest, timers may stop for a while and then fire many times.
    assert messages > 1
    assert messages <= Lab.amount(150, 1_000)
    assert bytes =~ ~r/^\d/
    true!(fn -> VM.run(nock, fn -> :sys.get_state(Tube.Stats.Publisher).watched end) == nil end)
  end

  # A VM on an emulated processor may publish later than the program waits.
  defp rates(run_dir, tries) do
    assert {list, 0} = tubes(run_dir, ["list", "--stats"])
    assert [header, line] = String.split(list, "\n", trim: true)
    assert String.split(header) == ~w(NOCK TIP SERVICE TID STATE RING MSG/S BYTES/S AGE)
    words = String.split(line)
    if "-" in words and tries > 1, do: rates(run_dir, tries - 1), else: words
  end

  test "watch prints the events of an open, a close and a kill", %{run_dir: run_dir} do
    {tip, nock} = pair(run_dir)
    :ok = open(nock)
    port = watch(run_dir)
    # After this event, none is missed.
    await(port, "present", [~s("nock":7,"tip":5)])

    :ok = open(nock)
    await(port, "opened", [~s("nock":7,"tip":5)])
    await(port, "connected", [~s("service":"chat.v2")])
    VM.run(nock, fn -> Tube.close(Process.get(:tube)) end)
    # Closing takes only a millisecond or two, so "closing" may not be seen.
    await(port, "closed", [])

    :ok = open(nock)
    await(port, "connected", [])
    :ok = VM.kill9(tip)
    await(port, "closed", [])
    assert {"NOCK" <> _, 0} = tubes(run_dir, ["list"])
  end

  # The nodes of a domain vanish with it, while a stopped VM keeps its own. Locally, a VM is a domain.
  test "reap removes what a dead domain leaves at a stopped VM", %{run_dir: run_dir} do
    victim = if @lab, do: Lab.create!(), else: 5
    {tip, nock} = pair(run_dir, victim)
    :ok = open(nock, victim)
    port = watch(run_dir)
    await(port, "present", [])
    :ok = VM.signal(nock, "STOP")
    destroy(tip)
    assert await(port, "stale", []) =~ "does not exist"

    assert {list, 0} = tubes(run_dir, ["list"])
    assert list =~ "stale!"
    assert {dry, 0} = tubes(run_dir, ["reap"])
    assert dry =~ "would remove /local/domain/7/data/nock/#{victim}/"
    assert {list, 0} = tubes(run_dir, ["list"])
    assert list =~ "stale!"

    assert {doctor, _status} = tubes(run_dir, ["doctor"])
    assert doctor =~ "left over from dead domains"

    assert {out, 0} = tubes(run_dir, ["reap", "--yes", "--settle", "0.1"])
    assert out =~ "removed /local/domain/7/data/nock/#{victim}/"
    assert await(port, "closed", []) =~ "domain #{victim} is gone"
    assert {out, 0} = tubes(run_dir, ["reap"])
    assert out =~ "nothing is left over"
    :ok = VM.signal(nock, "CONT")
  end

  defp destroy(tip) do
    if @lab do
      Lab.destroy(tip.domid)
      # Nothing is left there to close the connection that controls the VM.
      VM.forget(tip)
    else
      VM.kill9(tip)
    end
  end
end
