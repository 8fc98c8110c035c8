defmodule Tube.Stats.PublisherTest do
  # Counters in the store: present while a reader has a lease, and bounded in every way.
  use ExUnit.Case, async: true
  use Tube.Test.VM

  import Tube.Test.RunDir
  import Tube.Test.Eventually, only: [true!: 1, true!: 2]

  @nock "/local/domain/7/data/stats/nock/5/0"
  @tip "/local/domain/5/data/stats/tip/7/0"

  setup :fresh_run_dir

  setup %{run_dir: run_dir} do
    tip = VM.start!(run_dir: run_dir, domid: 5)
    nock = VM.start!(run_dir: run_dir, domid: 7)

    VM.run(tip, fn ->
      {:ok, listener} = Tube.listen(active: false)
      Process.put(:listener, listener)
    end)

    VM.run(nock, fn ->
      {:ok, tube} = Tube.open(5, active: false)
      Process.put(:tube, tube)
    end)

    VM.run(tip, fn ->
      {:ok, tube} = Tube.accept(Process.get(:listener))
      Process.put(:tube, tube)
    end)

    %{tip: tip, nock: nock, env: store(run_dir, 0)}
  end

  defp store(run_dir, domid), do: [{"XENSTORED_PATH", "#{run_dir}/dom#{domid}/xenstored.sock"}]

  defp xenstore(env, verb, args),
    do: System.cmd("xenstore-#{verb}", args, env: env, stderr_to_stdout: true)

  defp tree(env), do: env |> xenstore("ls", ["-fp"]) |> elem(0)
  defp watch(env, domid), do: xenstore(env, "write", [lease(domid), "a test"])
  defp lease(domid), do: "/local/domain/#{domid}/data/stats/watch"

  # The counters of one end by name, nil if there are none.
  defp sample(env, path) do
    case xenstore(env, "read", [path]) do
      {line, 0} ->
        for word <- String.split(line), [name, number] = String.split(word, "="), into: %{} do
          {name, String.to_integer(number)}
        end

      _nothing ->
        nil
    end
  end

  test "a line for each end during a lease, and no longer", context do
    %{env: env, tip: tip, nock: nock} = context
    VM.run(nock, fn -> for n <- 1..3, do: Tube.send(Process.get(:tube), <<n::80>>) end)
    VM.run(tip, fn -> {:ok, _} = Tube.recv(Process.get(:tube)) end)
    refute tree(env) =~ "stats"
    assert VM.run(nock, fn -> :sys.get_state(Tube.Stats.Publisher).tick end) == nil

    watch(env, 7)
    true!(fn -> sample(env, @nock) end)

    assert %{"sent" => 3, "sent-bytes" => 30, "received" => 0, "time" => time} =
             sample(env, @nock)

    assert sample(env, @tip) == nil
    watch(env, 5)
    true!(fn -> sample(env, @tip) end)

    assert %{"received" => 1, "received-bytes" => 10, "receive-pending" => pending} =
             sample(env, @tip)

    assert pending > 0

    # The line is updated.
    VM.run(nock, fn -> Tube.send(Process.get(:tube), "more") end)
    true!(fn -> match?(%{"sent" => 4, "sent-bytes" => 34}, sample(env, @nock)) end)
    assert sample(env, @nock)["time"] > time

    # Only the domain itself and domain 0 may read it, not even the peer.
    assert tree(env) =~ ~r"/data/stats/nock/5/0 = .*\(n7\)"
    assert {_denied, 1} = xenstore(store(context.run_dir, 5), "read", [@nock])

    # A tube's line ends with the tube.
    for vm <- [tip, nock], do: VM.async(vm, fn -> Tube.close(Process.get(:tube)) end)
    true!(fn -> sample(env, @nock) == nil end)

    for domid <- [5, 7], do: xenstore(env, "rm", [lease(domid)])
    true!(fn -> not (tree(env) =~ "stats") end)
    assert VM.run(nock, fn -> :sys.get_state(Tube.Stats.Publisher).tick end) == nil
  end

  test "a lease that is not renewed ends after ten seconds", %{env: env, nock: nock} do
    watch(env, 7)
    true!(fn -> sample(env, @nock) end)
    true!(fn -> not (tree(env) =~ "stats") end, 15_000)
    assert VM.run(nock, fn -> :sys.get_state(Tube.Stats.Publisher).tick end) == nil
  end

  test "many renewals cost no more than one", %{env: env, nock: nock} do
    VM.run(nock, fn -> :sys.statistics(Tube.Stats.Publisher, true) end)
    path = lease(7)
    began = System.monotonic_time(:millisecond)
    script = "for n in $(seq 100); do xenstore-write #{path} $n; xenstore-rm #{path}; done"
    {_out, 0} = System.cmd("sh", ["-c", script], env: env)
    seconds = div(System.monotonic_time(:millisecond) - began, 1_000) + 1

    {:ok, counted} = VM.run(nock, fn -> :sys.statistics(Tube.Stats.Publisher, :get) end)
    # An event, a read and a round in each second.
    assert counted[:messages_in] in 1..(4 * seconds + 4)
  end

  test "counters leave a full store to the tubes", %{env: env, nock: nock} do
    # The domain uses up its quota.
    VM.run(nock, fn ->
      {:ok, store} = Tube.Domain.store()

      Enum.find(1..5_000, fn n ->
        path = "/local/domain/7/data/full/#{div(n, 100)}/#{n}"
        Tube.Xenstore.write(store, path, "") == {:error, :enospc}
      end)
    end)

    watch(env, 7)
    true!(fn -> VM.run(nock, fn -> :sys.get_state(Tube.Stats.Publisher).full end) end)
    assert sample(env, @nock) == nil
    refute tree(env) =~ "stats/nock"
  end
end
