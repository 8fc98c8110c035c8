defmodule Tube.TwoVMs.TrafficTest do
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.Traffic

  setup :fresh_run_dir

  setup %{run_dir: run_dir} = context do
    tip = VM.start!(run_dir: run_dir, domid: 5)
    nock = VM.start!(run_dir: run_dir, domid: 7)
    ring = context[:ring] || 65_536

    accepting =
      VM.async(tip, fn ->
        {:ok, listener} = Tube.listen(active: false, ring: ring, timeout: 30_000)
        Tube.accept(listener, 30_000)
      end)

    {:ok, theirs} = VM.run(nock, fn -> Tube.open(5, active: false, timeout: 30_000) end)
    {:ok, ours} = Task.await(accepting, 40_000)
    %{tip: tip, nock: nock, ours: ours, theirs: theirs}
  end

  @mib 1_048_576

  # MiB each way, 1 GiB in total.
  @amounts Tube.Test.Lab.amount([32, 160, 320], [1, 4, 16])

  for {{ring, largest}, mib} <-
        Enum.zip([{4096, 20_000}, {65_536, 300_000}, {1_048_576, @mib}], @amounts) do
    @tag ring: ring
    @tag timeout: 180_000
    test "random sizes both ways at once: #{mib} MiB each way through rings of #{ring} bytes",
         c do
      bytes = unquote(mib) * @mib
      largest = unquote(largest)
      %{ours: ours, theirs: theirs} = c

      a =
        VM.async(c.tip, fn -> Traffic.exchange(ours, 1, 2, bytes, largest) end, timeout: 170_000)

      b =
        VM.async(c.nock, fn -> Traffic.exchange(theirs, 2, 1, bytes, largest) end,
          timeout: 170_000
        )

      {sent_a, received_a} = Task.await(a, 175_000)
      {sent_b, received_b} = Task.await(b, 175_000)
      assert {sent_a, sent_b} == {received_b, received_a}
      assert sent_a > mib_messages(unquote(mib))
    end
  end

  defp mib_messages(mib), do: mib

  test "the smallest and the largest message", %{tip: tip, nock: nock, ours: ours, theirs: theirs} do
    for size <- [0, 1, 65_535, 65_536, 65_537, 64 * @mib] do
      sending =
        VM.async(nock, fn -> Tube.send(theirs, :binary.copy(<<size::8>>, size), 30_000) end)

      assert {^size, crc} =
               VM.run(tip, fn ->
                 {:ok, data} = Tube.recv(ours, 30_000)
                 {byte_size(data), :erlang.crc32(data)}
               end)

      assert Task.await(sending, 30_000) == :ok
      assert crc == :erlang.crc32(:binary.copy(<<size::8>>, size))
    end
  end

  test "more than max_message is refused before a byte is sent", %{
    nock: nock,
    tip: tip,
    ours: ours,
    theirs: theirs
  } do
    VM.run(nock, fn ->
      assert {:error, :emsgsize} = Tube.send(theirs, :binary.copy(<<0>>, 64 * 1_048_576 + 1))
      assert :ok = Tube.send(theirs, "after")
    end)

    assert VM.run(tip, fn -> Tube.recv(ours, 5_000) end) == {:ok, "after"}
  end

  test "a full ring blocks the sender, and nothing is dropped", c do
    %{ours: ours, theirs: theirs, nock: nock, tip: tip} = c

    # Nobody receives, so a send times out once the ring is full.
    accepted =
      VM.run(nock, fn ->
        Stream.repeatedly(fn -> Tube.send(theirs, :binary.copy("y", 1000), 50) end)
        |> Enum.find_index(&(&1 == {:error, :timeout}))
      end)

    assert accepted in 50..66

    # A waiting send continues as soon as there is room. The one that timed out never arrives.
    waiting = VM.async(nock, fn -> Tube.send(theirs, "last") end)

    VM.run(tip, fn ->
      for _ <- 1..accepted, do: {:ok, <<"yyyy", _::binary>>} = Tube.recv(ours, 5_000)
      {:ok, "last"} = Tube.recv(ours, 5_000)
      {:error, :timeout} = Tube.recv(ours, 0)
    end)

    assert Task.await(waiting) == :ok
  end

  test "many senders to one tube: each one's messages stay in order", %{
    tip: tip,
    nock: nock,
    ours: ours,
    theirs: theirs
  } do
    receiving =
      VM.async(tip, fn ->
        Enum.reduce(1..5_000, %{}, fn _, last ->
          {:ok, <<who::16, n::32, _pad::binary>>} = Tube.recv(ours, 60_000)
          true = n == Map.get(last, who, 0) + 1
          Map.put(last, who, n)
        end)
      end)

    VM.run(
      nock,
      fn ->
        1..50
        |> Enum.map(fn who ->
          Task.async(fn ->
            for n <- 1..100,
                do: :ok = Tube.send(theirs, <<who::16, n::32, 0::size(2000)-unit(8)>>)
          end)
        end)
        |> Task.await_many(60_000)
      end,
      timeout: 40_000
    )

    assert Task.await(receiving, 90_000) == Map.new(1..50, &{&1, 100})
  end

  test "active delivery: all, in order, and then the end", %{
    tip: tip,
    nock: nock,
    ours: ours,
    theirs: theirs
  } do
    receiving =
      VM.async(tip, fn ->
        :ok = Tube.setopts(ours, active: true)

        for n <- 1..20_000 do
          receive do
            {:tube, ^ours, <<^n::32, _::binary>>} -> :ok
          after
            10_000 -> raise "message #{n} did not come"
          end
        end

        receive do
          {:tube_closed, ^ours} -> :closed
        after
          10_000 -> :no_end
        end
      end)

    VM.run(
      nock,
      fn ->
        for n <- 1..20_000, do: :ok = Tube.send(theirs, <<n::32, 0::size(96)-unit(8)>>)
        :ok = Tube.close(theirs)
      end,
      timeout: 40_000
    )

    assert Task.await(receiving, 90_000) == :closed
  end

  test "counted delivery stops the sender", %{tip: tip, nock: nock, ours: ours, theirs: theirs} do
    VM.run(nock, fn -> for n <- 1..10, do: :ok = Tube.send(theirs, "#{n}") end)

    VM.run(tip, fn ->
      :ok = Tube.setopts(ours, active: 3)
      for n <- ["1", "2", "3"], do: assert_receive({:tube, ^ours, ^n}, 5_000)
      assert_receive {:tube_passive, ^ours}, 5_000
      refute_received {:tube, ^ours, _}
      :ok = Tube.setopts(ours, active: :once)
      assert_receive {:tube, ^ours, "4"}, 5_000
      assert {:ok, "5"} = Tube.recv(ours, 5_000)
    end)
  end
end
