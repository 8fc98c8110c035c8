defmodule Tube.Dist.GuardedTest do
  # Only the VM may use a tube of distributed Erlang, and before the cookie is checked a peer cannot
  # do much with it.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.Eventually
  alias Tube.Test.Node, as: Peer

  @a :a@dom5
  @b :b@dom7
  @mib 1_048_576

  @moduletag :apart

  setup :fresh_run_dir

  test "it is listed and marked, and no call on it disturbs the stream", c do
    [a, b] = Peer.start_all!(for name <- [@a, @b], do: [name: name, run_dir: c.run_dir])
    assert Peer.connect(a, @b)

    for vm <- [a, b] do
      assert VM.run(vm, fn ->
               [tube] = Tube.list()
               {:ok, %{mode: mode}} = Tube.info(tube)
               {mode, inspect(tube) =~ ~r/"dist-b" distribution connected 1024KiB/}
             end) == {:dist, true}
    end

    results =
      VM.run(a, fn ->
        [tube] = Tube.list()

        [
          Tube.send(tube, "between two packets"),
          Tube.send(tube, "at once", nosuspend: true),
          Tube.send(tube, :binary.copy("x", @mib)),
          Tube.send(tube, ["in", "parts"], timeout: 100),
          Tube.Connection.call(tube.pid, {:command, "by its process"}),
          Tube.recv(tube, 0),
          Tube.recv_many(tube, 10, 0),
          Tube.setopts(tube, active: false),
          Tube.setopts(tube, active: true),
          Tube.controlling_process(tube, self()),
          Tube.shutdown(tube, :write),
          Tube.close(tube)
        ]
      end)

    assert Enum.take(results, 5) == List.duplicate({:error, :distribution}, 5)
    for result <- Enum.drop(results, 5), do: assert(result in [error: :not_owner, error: :einval])

    # A port command from a process that is not the owner ends that process, as with a port.
    assert {:DOWN, :badsig} =
             VM.run(a, fn ->
               [tube] = Tube.list()

               {pid, ref} =
                 spawn_monitor(fn ->
                   send(tube.pid, {self(), {:command, "x"}})
                   receive do: (:no -> :ok)
                 end)

               receive do: ({:DOWN, ^ref, :process, ^pid, reason} -> {:DOWN, reason})
             end)

    for {vm, other} <- [{a, @b}, {b, @a}], n <- [1, 100_000, 3 * @mib] do
      data = fn -> :binary.copy(<<n::8>>, n) end
      there = fn -> :erpc.call(other, :erlang, :md5, [data.()]) end
      assert VM.run(vm, there) == :erlang.md5(data.())
    end

    assert VM.call(a, :erlang, :nodes, []) == [@b]
  end

  # The listener's own limit would be five seconds.
  test "an open request that makes no progress times out after net_setuptime", c do
    b = Peer.start!(name: @b, run_dir: c.run_dir, kernel: ~w(-kernel net_setuptime 1))
    outsider = VM.start!(run_dir: c.run_dir, domid: 9)

    VM.run(outsider, fn ->
      {:ok, store} = Tube.Domain.store()

      for directory <- ~w(nock nock/7) do
        :ok = Tube.Xenstore.perform(store, {:mkdir, "/local/domain/9/data/#{directory}"})
        perms = [n: 9, r: 7]

        :ok =
          Tube.Xenstore.perform(store, {:set_perms, "/local/domain/9/data/#{directory}", perms})
      end

      for {key, value} <- [
            tip: "/local/domain/7/data/tip/9/60",
            service: "dist-b",
            version: "1",
            nonce: "0123456789abcdef",
            state: "2"
          ],
          do: :ok = Tube.Xenstore.write(store, "/local/domain/9/data/nock/7/60/#{key}", value)
    end)

    # The open request stays in the store, and may start another tip: only the first tip is timed.
    children = fn -> VM.call(b, DynamicSupervisor, :which_children, [Tube.Connections]) end
    Eventually.true!(fn -> match?([_first], children.()) end)
    [{_id, first, _type, _modules}] = children.()
    gone? = fn -> not VM.call(b, :erlang, :is_process_alive, [first]) end
    Eventually.true!(gone?, 3_500)
  end

  test "before the cookie a peer cannot make a node take a large message", c do
    b = Peer.start!(name: @b, run_dir: c.run_dir)
    outsider = VM.start!(run_dir: c.run_dir, domid: 9)

    # Refused at its first fragment; otherwise the send would succeed.
    assert {:error, reason} =
             VM.run(outsider, fn ->
               {:ok, tube} =
                 Tube.open(7,
                   service: "dist-b",
                   active: false,
                   max_message: 256 * @mib,
                   timeout: 30_000
                 )

               Tube.send(tube, :binary.copy("x", 64 * @mib))
             end)

    assert reason in [:closed, :protocol, :peer_down]

    # A message within the limit of a handshake is read, and then found to be invalid.
    assert VM.run(outsider, fn ->
             {:ok, tube} = Tube.open(7, service: "dist-b", active: false, timeout: 30_000)
             :ok = Tube.send(tube, :binary.copy("x", 65_536))
             Tube.recv(tube)
           end) == {:error, :closed}

    a = Peer.start!(name: @a, run_dir: c.run_dir)
    assert Peer.connect(a, @b)
    large = fn -> :erpc.call(@b, :erlang, :byte_size, [:binary.copy("y", 32 * @mib)]) end
    assert VM.run(a, large) == 32 * @mib
    assert VM.call(b, :erlang, :nodes, []) == [@a]
  end
end
