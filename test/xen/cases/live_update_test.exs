defmodule Tube.Xen.LiveUpdateTest do
  # C xenstored replaces itself with a new program while connections are open: nodes and tubes stay
  # connected, and new ones can connect.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.Lab
  alias Tube.Test.Node, as: Peer

  @moduletag :xen
  @moduletag timeout: 400_000

  @b :b@dom7
  @program "/usr/lib/xen-4.17/bin/xenstored"

  setup :fresh_run_dir

  # oxenstored has another command for this.
  @tag skip: System.get_env("TUBE_TEST_STORE") not in [nil, "xenstored"] && "not xenstored"
  test "a live update of xenstored breaks no connection of nodes and no tube", c do
    [a, b] = Peer.start_all!(for name <- [:a@dom5, @b], do: [name: name, run_dir: c.run_dir])
    assert Peer.connect(a, @b)

    VM.run(b, fn ->
      {:ok, listener} = Tube.listen(service: "other", active: false, timeout: 60_000)
      Process.put(:listener, listener)
    end)

    accept = fn ->
      {:ok, tube} = Tube.accept(Process.get(:listener), 60_000)
      Process.put(:tube, tube)
    end

    accepting = VM.async(b, accept, timeout: 60_000)
    VM.run(a, fn -> open() end, timeout: 60_000)
    Task.await(accepting, 400_000)
    for vm <- [a, b], do: VM.run(vm, fn -> :net_kernel.monitor_nodes(true) end)

    # The command fails if there was no update. The new program has a further option, -U.
    updated =
      Lab.sh(
        0,
        "xenstore-control live-update #{@program} && cat /proc/$(pidof xenstored)/cmdline"
      )

    assert updated =~ "-U"

    assert VM.call(a, :net_adm, :ping, [@b]) == :pong
    VM.run(a, fn -> :ok = Tube.send(Process.get(:tube), "after it") end)
    assert VM.run(b, fn -> Tube.recv(Process.get(:tube), 30_000) end) == {:ok, "after it"}
    for vm <- [a, b], do: refute(VM.run(vm, fn -> nodedown() end))

    # Watches still work: the end of a tube is seen, and an open request gets its reply.
    VM.run(a, fn -> :ok = Tube.close(Process.get(:tube)) end)
    assert VM.run(b, fn -> Tube.recv(Process.get(:tube), 30_000) end) == {:error, :closed}
    accepting = VM.async(b, accept, timeout: 60_000)
    VM.run(a, fn -> open() end, timeout: 60_000)
    Task.await(accepting, 400_000)
    assert VM.call(a, :erlang, :disconnect_node, [@b])
    assert Peer.connect(a, @b)
  end

  @doc false
  def open do
    {:ok, tube} = Tube.open(7, service: "other", active: false, timeout: 60_000)
    Process.put(:tube, tube)
  end

  @doc false
  def nodedown do
    {:messages, messages} = Process.info(self(), :messages)
    List.keymember?(messages, :nodedown, 0)
  end
end
