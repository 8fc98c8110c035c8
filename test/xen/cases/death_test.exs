defmodule Tube.Xen.DeathTest do
  # Ends that need a hypervisor.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.{Eventually, Lab}

  @moduletag :xen
  @moduletag timeout: 300_000

  setup :fresh_run_dir

  # Milliseconds until the owner knows. A quiet machine needs some hundredths of a second.
  @reported 1_000
  # Until no page of a dead domain is mapped any more.
  @unmapped 5_000

  for {whose, dies, lives} <- [{"tip", 5, 7}, {"nock", 7, 5}] do
    test "the #{whose} is killed and its domain lives: the owner is notified at once", c do
      [dies, lives] = for domid <- [unquote(dies), unquote(lives)], do: start(c, domid)
      listen(if unquote(dies) == 5, do: dies, else: lives)

      {here, there} =
        if unquote(dies) == 5, do: connect(dies, lives), else: connect(lives, dies) |> swap()

      VM.run(lives, fn -> :ok = Tube.setopts(there, active: true) end)
      # Not a task: it never returns.
      spawn(fn -> VM.run(dies, fn -> kill_myself(here) end) end)

      VM.run(lives, fn ->
        assert_receive {:tube, ^there, "now"}, 30_000
        began = System.monotonic_time(:millisecond)
        assert_receive {:tube_error, ^there, :peer_down}, 30_000
        assert System.monotonic_time(:millisecond) - began < @reported
        assert_receive {:tube_closed, ^there}, 30_000
      end)

      assert_clean(lives)
    end
  end

  # With a handshake in every state, and with tubes whose owner is passive, is active, or does
  # nothing. One of the two guests is PVH, to cover that type as well.
  for {how, deed, type} <- [{"destroyed", :destroy, "pvh"}, {"made to panic", :crash, "pv"}] do
    test "the peer's domain (#{type}) is #{how}: owners are notified, and nothing holds the dead domain",
         c do
      doomed = Lab.create!(TYPE: unquote(type))
      other = VM.start(run_dir: c.run_dir, domid: doomed)
      me = start(c, 5)
      for vm <- [me, other], do: listen(vm)

      {as_tip, as_its_nock} = connect(me, other, 5)
      {_, as_nock} = connect(other, me, doomed)
      {quiet_there, quiet} = connect(other, me, doomed)
      assert_talk(me, as_tip, other, as_its_nock)

      VM.run(me, fn ->
        for tube <- [as_tip, as_nock], do: :ok = Tube.setopts(tube, active: true)
      end)

      VM.run(other, fn -> :ok = Tube.send(quiet_there, "last words") end)
      begin_handshakes(me, doomed)

      # This permission stays with domain 5 after the test, which harms no other test.
      "" = Lab.sh(0, "xenstore-chmod @releaseDomain n0 r5")
      VM.run(me, fn -> :ok = Tube.Domain.subscribe() end, as: :observer)

      reported =
        VM.async(me, fn ->
          for tube <- [as_tip, as_nock],
              do: assert_receive({:tube_error, ^tube, :peer_domain_gone}, 60_000)
        end)

      apply(Lab, unquote(deed), [doomed])
      # `destroy` returns when the domain is gone, `crash` some time before the panic.
      Task.await(reported, if(unquote(deed) == :destroy, do: @reported, else: 90_000))
      VM.run(me, fn -> assert_receive {:tube_domain, :released}, 30_000 end, as: :observer)

      # Not before: while its domain runs, a VM that loses its caller would end in good order.
      VM.forget(other)

      # The owner of `quiet` has not received yet: its tube holds a private copy.
      dead? = fn -> for({"(null)", _} = dead <- Lab.domains(), do: dead) == [] end
      Eventually.true!(dead?, @unmapped)
      refute List.keymember?(Lab.domains(), doomed, 1)

      VM.run(me, fn ->
        assert Tube.recv(quiet, 5_000) == {:ok, "last words"}
        assert Tube.recv(quiet, 5_000) == {:error, :peer_domain_gone}

        # One tube had reached the listener's queue: its new owner learns that it has ended.
        {:ok, waiting} = Tube.accept(Process.get(:listener), 0)
        assert Tube.recv(waiting, 5_000) == {:error, :peer_domain_gone}

        for _attempt <- 1..2 do
          assert_receive {:opened, {:error, reason}}, 60_000
          assert reason in [:timeout, :peer_down, :peer_domain_gone]
        end
      end)

      assert_clean(me)
      tree = Lab.sh(0, "xenstore-ls -f /local/domain/5/data")
      refute tree =~ "/nock/#{doomed}" or tree =~ "/tip/#{doomed}"
    end
  end

  # Handshakes by shell commands in the doomed domain, each stopped at another step.
  defp begin_handshakes(me, doomed) do
    Lab.sh(doomed, """
    request() {
      k=data/nock/5/$1
      xenstore-write $k/tip /local/domain/5/data/tip/#{doomed}/$1 $k/service default \\
        $k/version 1 $k/nonce 0123456789abcd$1 $k/state 2
    }
    fill() { xenstore-write /local/domain/5/data/tip/#{doomed}/$1/nock /local/domain/#{doomed}/data/nock/5/$1; }
    offered() { until [ "$(xenstore-read /local/domain/5/data/tip/#{doomed}/$1/state 2>/dev/null)" = 3 ]; do usleep 50000; done; }
    request 60
    request 61; fill 61; offered 61
    request 62; fill 62; offered 62; xenstore-write data/nock/5/62/state 4
    xenstore-write data/tube/silent x data/tube/slow x
    """)

    VM.run(me, fn ->
      owner = self()

      for {service, tid} <- [{"silent", 70}, {"slow", 71}] do
        spawn_link(fn ->
          # The domain dies before that.
          options = [service: service, tid: tid, timeout: 5_000]
          send(owner, {:opened, Tube.open(doomed, options)})
        end)
      end
    end)

    Lab.sh(doomed, """
    until nonce=$(xenstore-read /local/domain/5/data/nock/#{doomed}/71/nonce 2>/dev/null); do usleep 50000; done
    xenstore-write data/tip/5/71/nonce $nonce data/tip/5/71/version 1 data/tip/5/71/state 1
    """)
  end

  def kill_myself(tube) do
    :ok = Tube.send(tube, "now")
    System.cmd("kill", ["-9", System.pid()])
  end

  defp start(c, domid), do: VM.start!(run_dir: c.run_dir, domid: domid)
  defp swap({a, b}), do: {b, a}

  defp listen(vm) do
    VM.run(vm, fn -> Process.put(:listener, listener()) end)
  end

  # Publishing has two seconds, which may be too little right after a guest has started.
  def listener do
    # An open request whose nock does not continue, because its domain is gone, lives as long as
    # this.
    case Tube.listen(active: false, timeout: 10_000) do
      {:ok, listener} -> listener
      {:error, :timeout} -> listener()
    end
  end

  # `tip` is the domain `domid`, and listens.
  defp connect(tip, nock, domid \\ 5) do
    accepting =
      VM.async(tip, fn ->
        {:ok, tube} = Tube.accept(Process.get(:listener), 60_000)
        tube
      end)

    {:ok, theirs} =
      VM.run(nock, fn -> Tube.open(domid, active: false, timeout: 60_000) end, timeout: 60_000)

    {Task.await(accepting, 60_000), theirs}
  end

  # Sends more than a ring holds, and checks that it arrives whole.
  defp assert_talk(one, tube_one, other, tube_other) do
    data = fn byte -> :binary.copy(byte, 300_000) end

    for {from, tube_from, to, tube_to, byte} <- [
          {one, tube_one, other, tube_other, "a"},
          {other, tube_other, one, tube_one, "b"}
        ] do
      sending = VM.async(from, fn -> Tube.send(tube_from, data.(byte)) end)
      assert VM.run(to, fn -> Tube.recv(tube_to, 30_000) == {:ok, data.(byte)} end)
      assert Task.await(sending, 30_000) == :ok
    end
  end

  defp assert_clean(vm) do
    VM.run(
      vm,
      fn ->
        Eventually.true!(
          fn -> match?(%{links: 0, pages: 0}, Tube.Native.live_counts()) end,
          10_000
        )

        Eventually.true!(
          fn -> DynamicSupervisor.count_children(Tube.Connections).active == 0 end,
          10_000
        )
      end,
      as: :observer
    )
  end
end
