defmodule Tube.TwoVMs.SuspendTest do
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir

  setup :fresh_run_dir

  setup %{run_dir: run_dir} do
    %{one: VM.start!(run_dir: run_dir, domid: 5), other: VM.start!(run_dir: run_dir, domid: 7)}
  end

  test "sent messages arrive, either way, and then both ends get the reason", %{
    one: one,
    other: other
  } do
    {as_tip, its_nock} = connect(one, other, 5)
    {its_tip, as_nock} = connect(other, one, 7)

    for {vm, tube} <- [{one, as_tip}, {one, as_nock}, {other, its_nock}, {other, its_tip}] do
      VM.run(vm, fn -> for n <- 1..50, do: :ok = Tube.send(tube, "#{n}") end)
    end

    # The peer receives during the suspend.
    receiving = VM.async(other, fn -> for tube <- [its_nock, its_tip], do: receive_all(tube) end)

    VM.run(one, fn ->
      assert Tube.suspend() == :ok
      assert_nothing_shared()

      for tube <- [as_tip, as_nock] do
        assert Tube.send(tube, "late") == {:error, :suspended}
        assert receive_all(tube) == {50, {:error, :suspended}}
      end

      assert_all_ended()
    end)

    assert Task.await(receiving) == List.duplicate({50, {:error, :closed}}, 2)
    VM.run(other, fn -> assert_all_ended() end)
  end

  test "no tube opens until resume, and then all do", %{one: one, other: other} do
    {_, _} = connect(one, other, 5)

    VM.run(one, fn ->
      :ok = Tube.suspend()
      :ok = Tube.suspend()

      for refused <- [Tube.open(7), Tube.listen(service: "new"), Tube.domid()] do
        assert {:error, {:suspended, text}} = refused
        assert text =~ "Tube.resume/0"
        assert Tube.Error.message({:suspended, text}) == text
      end
    end)

    # Open requests wait in the meantime.
    assert VM.run(other, fn -> Tube.open(5, service: "s5", timeout: 300) end) ==
             {:error, :timeout}

    opening =
      VM.async(other, fn -> Tube.open(5, service: "s5", active: false, timeout: 20_000) end)

    VM.run(other, fn -> await_attempt() end, as: :checker)

    VM.run(one, fn ->
      assert Tube.resume() == :ok
      assert Tube.resume() == :ok
      assert Tube.domid() == {:ok, 5}
      {:ok, tube} = Tube.accept(Process.get("s5"), 10_000)
      :ok = Tube.send(tube, "here again")
    end)

    assert {:ok, tube} = Task.await(opening, 30_000)
    assert VM.run(other, fn -> Tube.recv(tube, 5_000) end) == {:ok, "here again"}
  end

  test "active owners get the reason, in either mode", %{one: one, other: other} do
    {_, its_nock} = connect(one, other, 5, active: true)
    {_, its_other} = connect(one, other, 5, active: true, mode: :port)
    VM.run(other, fn -> for tube <- [its_nock, its_other], do: :ok = Tube.send(tube, "last") end)

    VM.run(one, fn ->
      [as_tube, as_port] = Process.get(:accepted) |> Enum.reverse()
      Process.flag(:trap_exit, true)
      :ok = Tube.suspend()
      pid = as_port.pid
      assert_receive {:tube, ^as_tube, "last"}, 5_000
      assert_receive {:tube_error, ^as_tube, :suspended}, 5_000
      assert_receive {:tube_closed, ^as_tube}, 5_000
      assert_receive {^pid, {:data, "last"}}, 5_000
      assert_receive {:EXIT, ^pid, :suspended}, 5_000
      assert_nothing_shared()
    end)
  end

  test "a peer that does not receive in time is cut off", %{one: one, other: other} do
    {as_tip, _} = connect(one, other, 5)
    {_, as_nock} = connect(other, one, 7)
    VM.signal(other, "STOP")

    VM.run(one, fn ->
      for tube <- [as_tip, as_nock], do: :ok = Tube.send(tube, "not in time")
      began = System.monotonic_time(:millisecond)
      assert Tube.suspend(200) == :ok
      assert System.monotonic_time(:millisecond) - began < 3_000
      assert_nothing_shared()
      for tube <- [as_tip, as_nock], do: {:error, :suspended} = Tube.recv(tube)
    end)

    VM.signal(other, "CONT")
    assert VM.run(one, fn -> Tube.resume() end) == :ok
    # The old tubes do not disturb new ones.
    {as_tip, its_nock} = connect(one, other, 5)
    VM.run(other, fn -> :ok = Tube.send(its_nock, "anew") end)
    assert VM.run(one, fn -> Tube.recv(as_tip, 5_000) end) == {:ok, "anew"}
  end

  test "an open in progress ends with the reason", %{one: one} do
    opening = VM.async(one, fn -> Tube.open(9, timeout: 20_000) end)
    VM.run(one, fn -> await_attempt() end, as: :checker)
    VM.run(one, fn -> assert Tube.suspend() == :ok end, as: :checker)
    assert Task.await(opening) == {:error, :suspended}
    VM.run(one, fn -> assert_all_ended() end)
  end

  test "suspend and resume without a tube", %{one: one} do
    VM.run(one, fn ->
      assert Tube.resume() == :ok
      assert Tube.suspend(0) == :ok
      assert {:error, {:suspended, _}} = Tube.domid()
      assert Tube.resume() == :ok
      assert Tube.domid() == {:ok, 5}
    end)
  end

  test "a limit is a number of milliseconds" do
    for wrong <- [-1, :infinity, 1.5],
        do: assert_raise(ArgumentError, fn -> Tube.suspend(wrong) end)
  end

  # A tube from `nock` to `tip`, which is domain `domid`; each end belongs to the VM's main process.
  defp connect(tip, nock, domid, options \\ []) do
    service = "s#{domid}#{options[:mode]}"

    VM.run(tip, fn ->
      unless Process.get(service) do
        common = [service: service, active: false, timeout: 30_000]
        {:ok, listener} = Tube.listen(common ++ options)
        Process.put(service, listener)
      end
    end)

    {:ok, theirs} =
      VM.run(nock, fn -> Tube.open(domid, service: service, active: false, timeout: 30_000) end)

    {:ok, ours} =
      VM.run(tip, fn ->
        {:ok, tube} = Tube.accept(Process.get(service), 30_000)
        Process.put(:accepted, [tube | Process.get(:accepted, [])])
        {:ok, tube}
      end)

    {ours, theirs}
  end

  def receive_all(tube, n \\ 0) do
    case Tube.recv(tube, 10_000) do
      {:ok, _data} -> receive_all(tube, n + 1)
      ended -> {n, ended}
    end
  end

  # By the library's own count and the kernel's: no memory of other processes or domains.
  def assert_nothing_shared do
    assert %{links: 0, pages: 0} = Tube.Native.live_counts()
    refute File.read!("/proc/self/maps") =~ ~r"memfd:tube|/dev/xen/gnt"
  end

  def assert_all_ended do
    Tube.Test.Eventually.true!(fn ->
      DynamicSupervisor.count_children(Tube.Connections).active == 0
    end)

    assert Tube.list() == []
  end

  def await_attempt do
    Tube.Test.Eventually.true!(fn ->
      DynamicSupervisor.count_children(Tube.Connections).active > 0
    end)
  end
end
