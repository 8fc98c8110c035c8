defmodule Tube.Xen.DistTest do
  # Nodes of distributed Erlang in guests: how soon one learns of the other's end; one node per
  # domain.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.Lab
  alias Tube.Test.Node, as: Peer

  @moduletag :xen
  @moduletag timeout: 400_000

  setup :fresh_run_dir

  # The promise, in milliseconds. It takes some hundredths of a second, but an emulated guest may
  # stand still for longer, so the test tries more than once.
  @reported 1_000
  @tries 3

  test "a node that is killed is nodedown within a second of its last sign of life", c do
    assert soon?(@tries, fn ->
             b = :b@dom7
             {a, vm} = connected(c, b)
             last_sign = hear(a, vm, b)
             VM.kill9(vm)
             last_sign
           end)
  end

  test "a node whose domain is destroyed is nodedown within a second of that", c do
    assert soon?(@tries, fn ->
             doomed = Lab.create!()
             b = :"b@dom#{doomed}"
             {a, vm} = connected(c, b)
             last_sign = hear(a, vm, b)
             Lab.destroy(doomed)
             VM.forget(vm)
             last_sign
           end)
  end

  test "a second node of a domain is refused, and says why", c do
    Peer.start_all!([[name: :a@dom5, run_dir: c.run_dir]])
    paths = Enum.join(VM.code_path(), " ")
    node = "-proto_dist tube -start_epmd false -sname other@dom5"
    text = Lab.sh(5, "erl #{paths} #{node} -noshell -eval 'halt().' || echo status $?")
    assert text =~ "another VM of this Xen domain has tubes; only one may"
    assert text =~ ~r/^status [1-9]/m
  end

  defp connected(c, b) do
    [a] = Peer.start_all!([[name: :a@dom5, run_dir: c.run_dir]])
    vm = Peer.start(name: b, run_dir: c.run_dir, modules: [__MODULE__])
    assert Peer.connect(a, b)
    {a, vm}
  end

  defp soon?(0, _end), do: false

  defp soon?(tries, deed) do
    took = Task.await(deed.(), 60_000)
    took < @reported or soon?(tries - 1, deed)
  end

  # Node b sends a sign of life every ten milliseconds. The task returns the time from the last one
  # to nodedown at a.
  defp hear(a, vm, b) do
    listener = VM.run(a, fn -> :net_kernel.monitor_nodes(true) && self() end)
    VM.run(vm, fn -> {:ok, _} = :timer.send_interval(10, listener, :alive) end)
    VM.run(a, fn -> receive do: (:alive -> :ok) end)
    VM.async(a, fn -> last_sign(b, now()) end)
  end

  @doc false
  def last_sign(b, at) do
    receive do
      :alive -> last_sign(b, now())
      {:nodedown, ^b} -> now() - at
    end
  end

  defp now, do: System.monotonic_time(:millisecond)
end
