defmodule Tube.Dist.PollTest do
  # Connections with the setting `poll`: a poller instead of notifications.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.Eventually
  alias Tube.Test.Node, as: Peer

  @a :a@dom5
  @b :b@dom7

  @moduletag :apart

  setup :fresh_run_dir

  test "a connection has a poller and ends with it, and the next connection has its own", c do
    kernel = ~w(-connect_all false -kernel dist_auto_connect never -kernel tube_dist)
    a = Peer.start!(name: @a, run_dir: c.run_dir, kernel: kernel ++ ["[{poll,{adaptive,200}}]"])
    # Each side sets it for itself.
    b = Peer.start!(name: @b, run_dir: c.run_dir, kernel: kernel ++ ["[]"])

    assert Peer.connect(a, @b)
    assert [poller] = VM.run(a, fn -> pollers() end)
    assert [] = VM.run(b, fn -> pollers() end)

    for {vm, other} <- [{a, @b}, {b, @a}] do
      assert VM.run(vm, fn ->
               Enum.all?(1..2_000, &(:erpc.call(other, :erlang, :abs, [-&1]) == &1))
             end)
    end

    VM.run(a, fn -> Process.exit(poller, :kill) end)
    for vm <- [a, b], do: Eventually.true!(fn -> VM.call(vm, :erlang, :nodes, []) == [] end)

    assert Peer.connect(b, @a)
    assert [other] = VM.run(a, fn -> pollers() end)
    assert other != poller
    VM.call(b, :erlang, :disconnect_node, [@a])
    Eventually.true!(fn -> VM.run(a, fn -> pollers() end) == [] end)
  end

  test "errors of invalid settings say what is allowed" do
    for {setting, allowed} <- [
          {[poll: :always], ":off, or {:adaptive, microseconds} with 1 to 10000"},
          {[fragments: 1], "allowed is true or false"},
          {[connect: nil], "allowed is true or false"},
          {[ring: 5], "a power of two"},
          {[rings: 4096], "allowed are :peers, :ring, :fragments, :connect, :poll"},
          {:none, "allowed is a list of pairs"}
        ] do
      Application.put_env(:kernel, :tube_dist, setting)
      on_exit(fn -> Application.delete_env(:kernel, :tube_dist) end)
      assert {:error, text} = Tube.Dist.Settings.get()
      assert to_string(text) =~ "kernel's tube_dist"
      assert to_string(text) =~ allowed
    end
  end

  defp pollers do
    for pid <- Process.list(),
        {:current_stacktrace, stack} <- [Process.info(pid, :current_stacktrace)],
        Enum.any?(stack, &(elem(&1, 0) == Tube.Connection.BusyPoller)),
        do: pid
  end
end
