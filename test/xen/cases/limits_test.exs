defmodule Tube.Xen.LimitsTest do
  # A guest may share 1,024 pages: the default of the module xen-gntalloc.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.Eventually

  @moduletag :xen
  @moduletag timeout: 400_000

  @mib 1_048_576
  @rounds 300
  @at_once 4

  setup :fresh_run_dir

  setup %{run_dir: run_dir} do
    %{tip: VM.start!(run_dir: run_dir, domid: 5), nock: VM.start!(run_dir: run_dir, domid: 7)}
  end

  test "with few pages left rings are smaller, and info says so at both ends; with none, open says why",
       c do
    # Each has two control pages; the ring is halved until it fits in the rest of the 1,024.
    expected = for kib <- [1024, 512, 256, 128, 64, 32, 4], do: kib * 1024
    serve(c.tip, length(expected), ring: @mib)

    VM.run(
      c.nock,
      fn ->
        sizes =
          for n <- 1..length(expected) do
            {:ok, tube} = Tube.open(5, active: false, timeout: 60_000)
            {:ok, mine} = Tube.info(tube)
            assert mine.tx.ring == mine.rx.ring
            :ok = Tube.send(tube, "#{n}")
            assert {:ok, theirs} = Tube.recv(tube, 60_000)
            assert theirs == "#{n} #{mine.rx.ring} #{mine.tx.ring}"
            mine.tx.ring
          end

        assert sizes == expected
        assert Tube.open(5, active: false, timeout: 60_000) == {:error, :enospc}
      end,
      timeout: 100_000
    )
  end

  test "#{@rounds} tubes opened and closed leave room for one of full size", c do
    serve(c.tip, @rounds + 1, service: "many")
    serve(c.tip, 1, service: "full", ring: @mib)

    VM.run(
      c.nock,
      fn ->
        # It stays open, so that the nodes that the pair shares stay in the store.
        {:ok, _kept} = Tube.open(5, active: false, service: "many", timeout: 60_000)

        1..@at_once
        |> Enum.map(fn _ ->
          Task.async(fn -> for n <- 1..div(@rounds, @at_once), do: open_and_close(n) end)
        end)
        |> Task.await_many(:infinity)

        # The tip frees its pages a moment after it has confirmed the end.
        Eventually.true!(fn -> match?(%{links: 1}, Tube.Native.live_counts()) end)
        {:ok, tube} = Tube.open(5, active: false, service: "full", timeout: 60_000)
        assert {:ok, %{tx: %{ring: @mib}, rx: %{ring: @mib}}} = Tube.info(tube)
      end,
      timeout: 60_000
    )
  end

  def open_and_close(n) do
    {:ok, tube} = Tube.open(5, active: false, service: "many", timeout: 60_000)
    :ok = Tube.send(tube, "#{n}")
    {:ok, _sizes} = Tube.recv(tube, 60_000)
    :ok = Tube.close(tube)
  end

  # Each tube is kept until its peer closes it.
  defp serve(tip, count, options) do
    VM.run(tip, fn ->
      {:ok, listener} = Tube.listen([active: false, timeout: 60_000] ++ options)
      spawn_link(fn -> for _ <- 1..count, do: accept(listener) end)
    end)
  end

  def accept(listener) do
    {:ok, tube} = Tube.accept(listener, 300_000)
    server = spawn_link(fn -> serve_one() end)
    :ok = Tube.controlling_process(tube, server)
    send(server, tube)
  end

  defp serve_one do
    receive do
      %Tube{} = tube ->
        with {:ok, text} <- Tube.recv(tube, 300_000) do
          {:ok, info} = Tube.info(tube)
          :ok = Tube.send(tube, "#{text} #{info.tx.ring} #{info.rx.ring}")
          Tube.recv(tube, :infinity)
        end
    end
  end
end
