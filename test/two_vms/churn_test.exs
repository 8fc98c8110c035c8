defmodule Tube.TwoVMs.ChurnTest do
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir

  setup :fresh_run_dir

  # The first rounds fill caches and pools; growth after them is a leak.
  @warm_up 200
  @rounds 2_000
  @long_rounds 20_000

  # In the lab there is no hub to measure; test/xen/cases has a smaller version of this test.
  @tag :hub
  @tag timeout: 240_000
  test "#{@rounds} rounds of open and close leave nothing behind", %{run_dir: run_dir} do
    churn(run_dir, @rounds)
  end

  @tag :hub
  @tag :long
  @tag timeout: 1_800_000
  test "#{@long_rounds} rounds of open and close leave nothing behind", %{run_dir: run_dir} do
    churn(run_dir, @long_rounds)
  end

  defp churn(run_dir, count) do
    tip = VM.start!(run_dir: run_dir, domid: 5)
    nock = VM.start!(run_dir: run_dir, domid: 7)

    VM.run(tip, fn ->
      {:ok, listener} = Tube.listen(active: false)
      spawn_link(fn -> serve(listener) end)
    end)

    rounds(nock, @warm_up)
    Tube.Test.Eventually.true!(fn -> at_rest?(run_dir, [tip, nock]) end, 10_000)
    before = measure(run_dir, [tip, nock])
    rounds(nock, count)

    # The tip ends its side of the last round on its own, and the hub closes the connection that the
    # test measured with.
    same? = fn ->
      Map.take(measure(run_dir, [tip, nock]), [:nodes, :fds]) == Map.take(before, [:nodes, :fds])
    end

    Tube.Test.Eventually.true!(same?, 10_000)
    later = measure(run_dir, [tip, nock])

    assert later.native == before.native
    assert Enum.all?(Enum.zip(later.processes, before.processes), fn {l, b} -> l <= b end)

    # Resident memory of the VMs and of the hub, in KiB. Allocators fluctuate, leaks keep growing.
    # 2,000 leaked rings would be 256 MiB, 2,000 leaked kilobytes 2 MiB.
    for {l, b} <- Enum.zip(later.rss, before.rss),
        do: assert(l - b < 20_000, "#{b} KiB grew to #{l} KiB")
  end

  # No tube is left on either side, and only the two VMs are connected to the store.
  defp at_rest?(run_dir, vms) do
    first = measure(run_dir, vms)

    first == %{measure(run_dir, vms) | rss: first.rss} and
      Enum.all?(first.native, &(&1.links == 0))
  end

  def serve(listener) do
    {:ok, tube} = Tube.accept(listener)
    {:ok, message} = Tube.recv(tube, 10_000)
    :ok = Tube.send(tube, message)
    {:error, :closed} = Tube.recv(tube, 10_000)
    serve(listener)
  end

  defp rounds(nock, count) do
    VM.run(
      nock,
      fn ->
        for n <- 1..count do
          {:ok, tube} = Tube.open(5, active: false)
          :ok = Tube.send(tube, <<n::32>>)
          {:ok, <<^n::32>>} = Tube.recv(tube, 10_000)
          :ok = Tube.close(tube)
        end
      end,
      timeout: 1_700_000
    )
  end

  defp measure(run_dir, vms) do
    for vm <- vms,
        do:
          VM.run(vm, fn -> for p <- Process.list(), do: :erlang.garbage_collect(p) end,
            as: :checker
          )

    [hub] = hub_pids(run_dir)
    pids = [hub | Enum.map(vms, & &1.os_pid)]

    %{
      nodes: nodes(run_dir),
      fds: for(pid <- pids, do: length(File.ls!("/proc/#{pid}/fd"))),
      native: for(vm <- vms, do: VM.call(vm, Tube.Native, :live_counts, [])),
      processes: for(vm <- vms, do: VM.call(vm, :erlang, :system_info, [:process_count])),
      rss: Enum.map(pids, &rss/1)
    }
  end

  defp nodes(run_dir) do
    env = [{"XENSTORED_PATH", Path.join(run_dir, "dom0/xenstored.sock")}]
    {text, 0} = System.cmd("xenstore-ls", ["-f"], env: env)
    text |> String.split("\n") |> Enum.map(&hd(String.split(&1, " ")))
  end

  defp rss(pid) do
    [_, kib] = Regex.run(~r/VmRSS:\s+(\d+) kB/, File.read!("/proc/#{pid}/status"))
    String.to_integer(kib)
  end
end
