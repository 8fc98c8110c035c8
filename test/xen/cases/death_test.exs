defmodule Tube.Xen.DeathTest do
  # Ends that only a hypervisor can bring about.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.{Eventually, Lab}

  @moduletag :xen
  @moduletag timeout: 300_000

  setup :fresh_run_dir

  # Milliseconds. It takes some hundredths of a second when the machine is quiet.
  @told 1_000
  # Until nothing of a dead domain is mapped any more.
  @let_go 5_000

  for {whose, dies, lives} <- [{"tip", 5, 7}, {"nock", 7, 5}] do
    test "the #{whose} is killed and its domain lives: the owner is told at once", c do
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
        assert System.monotonic_time(:millisecond) - began < @told
        assert_receive {:tube_closed, ^there}, 30_000
      end)

      assert_clean(lives)
    end
  end

  # In every state that a handshake can be in, and with tubes whose owner asks, is told, or does neither.
  # One of the two is a PVH guest, which is a guest like any other.
  for {how, deed, type} <- [{"destroyed", :destroy, "pvh"}, {"made to panic", :crash, "pv"}] do
    test "the peer's domain (#{type}) is #{how}: owners are told, and nothing keeps it from going",
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

      # For good, since domain 5 stays: to be told of the end of domains does no harm to the other tests.
      "" = Lab.sh(0, "xenstore-chmod @releaseDomain n0 r5")
      VM.run(me, fn -> :ok = Tube.Domain.subscribe() end, as: :witness)

      told =
        VM.async(me, fn ->
          for tube <- [as_tip, as_nock],
              do: assert_receive({:tube_error, ^tube, :peer_domain_gone}, 60_000)
        end)

      apply(Lab, unquote(deed), [doomed])
      # A panic comes some time after it was asked for; a destruction is over when it was.
      Task.await(told, if(unquote(deed) == :destroy, do: @told, else: 90_000))
      VM.run(me, fn -> assert_receive {:tube_domain, :released}, 30_000 end, as: :witness)

      # Not before: a VM that loses its caller ends in good order, if its domain still runs.
      VM.forget(other)

      # Nobody has asked for `quiet` yet: what it holds is a copy.
      dead? = fn -> for({"(null)", _} = dead <- Lab.domains(), do: dead) == [] end
      Eventually.true!(dead?, @let_go)
      refute List.keymember?(Lab.domains(), doomed, 1)

      VM.run(me, fn ->
        assert Tube.recv(quiet, 5_000) == {:ok, "last words"}
        assert Tube.recv(quiet, 5_000) == {:error, :peer_domain_gone}

        # The one that had come as far as the listener's queue: who takes it hears of its end.
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

  # What shell commands in the doomed domain can do of a handshake, each stopped at another step.
  defp begin_handshakes(me, doomed) do
    Lab.sh(doomed, """
    knock() {
      k=data/nock/5/$1
      xenstore-write $k/tip /local/domain/5/data/tip/#{doomed}/$1 $k/service default \\
        $k/version 1 $k/nonce 0123456789abcd$1 $k/state 2
    }
    enter() { xenstore-write /local/domain/5/data/tip/#{doomed}/$1/nock /local/domain/#{doomed}/data/nock/5/$1; }
    offered() { until [ "$(xenstore-read /local/domain/5/data/tip/#{doomed}/$1/state 2>/dev/null)" = 3 ]; do usleep 50000; done; }
    knock 60
    knock 61; enter 61; offered 61
    knock 62; enter 62; offered 62; xenstore-write data/nock/5/62/state 4
    xenstore-write data/tube/silent x data/tube/slow x
    """)

    VM.run(me, fn ->
      owner = self()

      for {service, tid} <- [{"silent", 70}, {"slow", 71}] do
        spawn_link(fn ->
          # Longer than the domain lives, and no longer.
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

  # The store has two seconds for it, which may be too little right after a guest has come up.
  def listener do
    # As long as a knock may go on whose nock never enters, after its domain has gone.
    case Tube.listen(active: false, timeout: 10_000) do
      {:ok, listener} -> listener
      {:error, :timeout} -> listener()
    end
  end

  # `tip` listens, and is the domain `domid`.
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

  # More than a ring holds, and that it is whole.
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
      as: :witness
    )
  end
end
