defmodule Tube.Stats.PublisherTest do
  # Counters for those outside: there while somebody asks for them, and bounded in every way.
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
  defp watch(env, domid), do: xenstore(env, "write", [wish(domid), "a test"])
  defp wish(domid), do: "/local/domain/#{domid}/data/stats/watch"

  # The numbers of one end by name, nil as long as nothing is shown.
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

  test "a line for each end while somebody asks, and no longer", context do
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

    # It goes on.
    VM.run(nock, fn -> Tube.send(Process.get(:tube), "more") end)
    true!(fn -> match?(%{"sent" => 4, "sent-bytes" => 34}, sample(env, @nock)) end)
    assert sample(env, @nock)["time"] > time

    # Nobody but the domain itself and domain 0 may read it, the peer neither.
    assert tree(env) =~ ~r"/data/stats/nock/5/0 = .*\(n7\)"
    assert {_denied, 1} = xenstore(store(context.run_dir, 5), "read", [@nock])

    # The end of a tube is the end of its line.
    for vm <- [tip, nock], do: VM.async(vm, fn -> Tube.close(Process.get(:tube)) end)
    true!(fn -> sample(env, @nock) == nil end)

    for domid <- [5, 7], do: xenstore(env, "rm", [wish(domid)])
    true!(fn -> not (tree(env) =~ "stats") end)
    assert VM.run(nock, fn -> :sys.get_state(Tube.Stats.Publisher).tick end) == nil
  end

  test "a wish that is not renewed is over after ten seconds", %{env: env, nock: nock} do
    watch(env, 7)
    true!(fn -> sample(env, @nock) end)
    true!(fn -> not (tree(env) =~ "stats") end, 15_000)
    assert VM.run(nock, fn -> :sys.get_state(Tube.Stats.Publisher).tick end) == nil
  end

  test "wishes without end cost what one costs", %{env: env, nock: nock} do
    VM.run(nock, fn -> :sys.statistics(Tube.Stats.Publisher, true) end)
    path = wish(7)
    began = System.monotonic_time(:millisecond)
    script = "for n in $(seq 100); do xenstore-write #{path} $n; xenstore-rm #{path}; done"
    {_out, 0} = System.cmd("sh", ["-c", script], env: env)
    seconds = div(System.monotonic_time(:millisecond) - began, 1_000) + 1

    {:ok, counted} = VM.run(nock, fn -> :sys.statistics(Tube.Stats.Publisher, :get) end)
    # An event and a look in each second, and a round.
    assert counted[:messages_in] in 1..(4 * seconds + 4)
  end

  test "a store without room for counters is left to the tubes", %{env: env, nock: nock} do
    # The domain uses up what it may have.
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
