defmodule Tube.Test.VMTest do
  @moduledoc false
  # The tool of the two-VM tests: what it reports about the death of a VM must be true.
  use ExUnit.Case, async: true
  use Tube.Test.VM

  # Without the library, whose faults must not look like faults of the tool.
  defp vm(opts \\ []), do: VM.start!([applications: []] ++ opts)

  test "a VM is an operating system process with the given environment" do
    vm = vm(run_dir: "/nowhere", domid: 7, env: [{"EXTRA", "yes"}])
    assert File.exists?("/proc/#{VM.os_pid(vm)}")
    assert VM.os_pid(vm) != String.to_integer(System.pid())
    names = ~w(TUBE_RUN_DIR TUBE_DOMID EXTRA)
    assert VM.run(vm, fn -> Enum.map(names, &System.get_env/1) end) == ["/nowhere", "7", "yes"]
  end

  test "functions run there, and one process keeps its mailbox between them" do
    vm = vm()
    main = VM.run(vm, fn -> send(self(), :kept) && self() end)
    assert VM.run(vm, fn -> receive(do: (message -> {message, self()})) end) == {:kept, main}
    refute VM.run(vm, fn -> self() end, as: :other) == main
  end

  test "an error there is raised here" do
    vm = vm()

    assert_raise ArgumentError, "over there", fn ->
      VM.run(vm, fn -> raise ArgumentError, "over there" end)
    end

    assert catch_throw(VM.run(vm, fn -> throw(:ball) end)) == :ball

    assert {:vm_process_died, :killed} =
             catch_exit(VM.run(vm, fn -> Process.exit(self(), :kill) end))

    # The next call gets a new process.
    assert VM.run(vm, fn -> :there end) == :there
  end

  test "an ended process takes linked processes with it" do
    vm = vm()
    linked = VM.run(vm, fn -> spawn_link(fn -> receive(do: (:never -> :ok)) end) end, as: :owner)
    monitor = fn -> Process.monitor(linked) end
    VM.run(vm, monitor)
    :ok = VM.end_process(vm, :owner)
    assert {:DOWN, _, :process, _, :killed} = VM.run(vm, fn -> receive(do: (down -> down)) end)
  end

  test "kill9 returns when the process holds nothing any more, stop ends it cleanly" do
    killed = vm()
    :ok = VM.kill9(killed)
    refute VM.alive?(killed)
    assert dead?(killed)

    stopped = vm()
    :ok = VM.stop(stopped)
    assert dead?(stopped)
    # A second time both do nothing: another process may have that pid now.
    assert :ok = VM.stop(stopped)
    assert :ok = VM.kill9(killed)
  end

  # Gone, or a zombie, which holds nothing but its place in the process table.
  defp dead?(vm) do
    case File.read("/proc/#{VM.os_pid(vm)}/stat") do
      {:error, _gone} -> true
      {:ok, stat} -> stat =~ ~r/\) [ZX] /
    end
  end
end
