defmodule Tube.Dist.TrafficTest do
  # Messages between nodes arrive intact, whatever their size, and a slow reader makes the writer
  # wait.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.{Eventually, Lab}
  alias Tube.Test.Node, as: Peer

  @a :a@dom5
  @b :b@dom7
  @mib 1_048_576

  # In the lab the copy of a table (behaviour_test.exs) is test enough.
  @moduletag :apart

  setup :fresh_run_dir

  setup c do
    common = [run_dir: c.run_dir, kernel: c[:kernel] || [], modules: [__MODULE__]]
    [a, b] = Peer.start_all!(for name <- [@a, @b], do: [name: name] ++ common)
    assert Peer.connect(a, @b)
    %{a: a, b: b}
  end

  # A guest has too little memory for so large a message, and too little time for so many.
  @count Lab.amount(5_000, 200)
  @large Lab.amount(256, 16)
  @pings Lab.amount(100, 10)

  @fragments_off ["-kernel", "tube_dist", "[{fragments,false}]"]
  @small_rings ["-kernel", "tube_dist", "[{ring,8192}]"]
  @polling ["-kernel", "tube_dist", "[{poll,{adaptive,200}}]"]

  for {name, kernel} <- [
        {"fragments", []},
        {"no fragments", @fragments_off},
        {"small rings", @small_rings},
        {"polling", @polling}
      ] do
    @tag kernel: kernel
    @tag timeout: 180_000
    test "#{@count} messages of random sizes both ways at once, with checksums: #{name}", c do
      [a, b] = for vm <- [c.a, c.b], do: VM.run(vm, fn -> self() end)
      seed = System.unique_integer()

      both =
        for {vm, to} <- [{c.a, b}, {c.b, a}] do
          VM.async(vm, fn -> exchange(to, @count, seed) end, timeout: 170_000)
        end

      assert Task.await_many(both, 175_000) == [@count, @count]
    end
  end

  for {name, kernel} <- [{"fragments", []}, {"no fragments", @fragments_off}] do
    @tag kernel: kernel
    @tag timeout: 120_000
    test "a message of #{@large} MiB, and small ones from others meanwhile: #{name}", c do
      {bytes, digest, pings} =
        VM.run(
          c.a,
          fn ->
            data = :binary.copy("0123456789abcdef", div(@large, 16) * @mib)
            call = Task.async(:erpc, :call, [@b, __MODULE__, :digest, [data], 100_000])
            pings = Enum.count(1..@pings, fn _ -> :pong == :net_adm.ping(@b) end)
            {bytes, digest} = Task.await(call, 100_000)
            {bytes, digest == :erlang.md5(data) && :same, pings}
          end,
          timeout: 110_000
        )

      assert {bytes, digest, pings} == {@large * @mib, :same, @pings}
    end
  end

  @tag kernel: ["+zdbbl", "1024"]
  test "a peer that reads nothing makes senders wait, and all arrives when it reads again", c do
    sink = VM.run(c.b, fn -> spawn(__MODULE__, :sink, [0]) end)

    :ok = VM.signal(c.b, "STOP")

    {refused, busy} =
      VM.run(c.a, fn ->
        :erlang.system_monitor(self(), [:busy_dist_port])
        data = :binary.copy(<<7>>, @mib)
        # Fills the ring and the queue: from then on send_nosuspend returns false.
        accepted = Enum.find(1..64, fn _ -> not :erlang.send_nosuspend(sink, data) end)
        Process.put(:accepted, accepted - 1)
        waiting = spawn(__MODULE__, :send_one, [sink, data])
        receive do: ({:monitor, ^waiting, :busy_dist_port, port} -> {accepted, is_port(port)})
      end)

    assert is_integer(refused) and busy
    :ok = VM.signal(c.b, "CONT")

    assert VM.run(c.a, fn ->
             # The accepted messages and the one that waited: 1 MiB each.
             total = (Process.get(:accepted) + 1) * @mib
             await_total(sink, total)
           end) == :all
  end

  test "messages sent before an orderly disconnect arrive", c do
    sink = VM.run(c.b, fn -> spawn(__MODULE__, :sink, [0]) end)

    VM.run(c.a, fn ->
      for _ <- 1..100, do: send(sink, :binary.copy(<<1>>, 1000))
      :erlang.disconnect_node(@b)
    end)

    Eventually.true!(fn ->
      VM.run(c.b, fn ->
        send(sink, {:total, self()})
        receive do: ({:total, total} -> total == 100_000)
      end)
    end)
  end

  ## In the nodes

  @doc false
  def digest(data), do: {byte_size(data), :erlang.md5(data)}

  @doc false
  def sink(total) do
    receive do
      {:total, to} ->
        send(to, {:total, total})
        sink(total)

      data ->
        sink(total + byte_size(data))
    end
  end

  @doc false
  def send_one(sink, data), do: send(sink, data)

  defp await_total(sink, total) do
    send(sink, {:total, self()})

    receive do
      {:total, ^total} -> :all
      {:total, _less} -> await_total(sink, total)
    end
  end

  # Sends from another process while this one receives, so that neither waits for the other.
  defp exchange(to, count, seed) do
    spawn_link(fn ->
      _ = :rand.seed(:exsss, seed)

      for n <- 1..count do
        data = :rand.bytes(size(n))
        send(to, {:traffic, n, :erlang.md5(data), data})
      end
    end)

    Enum.count(1..count, fn n ->
      receive do: ({:traffic, ^n, digest, data} -> digest == :erlang.md5(data))
    end)
  end

  # Most are small; some are larger than a fragment, some larger than the ring.
  defp size(n) when rem(n, 500) == 0, do: :rand.uniform(2_500_000)
  defp size(n) when rem(n, 10) == 0, do: :rand.uniform(150_000)
  defp size(_n), do: :rand.uniform(3_000) - 1
end
