defmodule Tube.TwoVMs.QuotaTest do
  # xenstored limits the nodes and watches of a guest. Without any left, open returns the reason and
  # leaves nothing behind.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.{Eventually, Lab}
  alias Tube.Xenstore

  @moduletag timeout: 120_000

  # More than either daemon allows a guest with its default settings.
  @many 1_100
  @filling "/local/domain/7/data/filling"

  setup :fresh_run_dir

  setup %{run_dir: run_dir} do
    [tip, nock] = for domid <- [5, 7], do: VM.start!(run_dir: run_dir, domid: domid)
    VM.run(tip, fn -> {:ok, _} = Tube.listen(active: false, timeout: 30_000) end)
    # Whether the test passes or not, the next one in the lab gets an unchanged guest.
    if Lab.here?(), do: on_exit(fn -> Lab.sh(0, "xenstore-rm #{@filling}") end)
    %{tip: tip, nock: nock}
  end

  test "no node left: open returns enospc, and succeeds when there is room again", c do
    VM.run(
      c.nock,
      fn ->
        {:ok, store} = Tube.Domain.store()
        :ok = Xenstore.perform(store, {:mkdir, @filling})
        # Few to a parent: the list of its children is limited too.
        make = &Xenstore.write(store, "#{@filling}/#{div(&1, 100)}/#{&1}", "")
        assert {:error, :enospc} = fill(make)
        assert Tube.open(5, timeout: 10_000) == {:error, :enospc}
        assert_nothing_left()
        :ok = Xenstore.rm(store, @filling)
        assert {:ok, _tube} = Tube.open(5, timeout: 30_000)
      end,
      timeout: 90_000
    )
  end

  test "no watch left: open returns the store's error, and succeeds when there is room again",
       c do
    VM.run(
      c.nock,
      fn ->
        {:ok, store} = Tube.Domain.store()
        watch = &Xenstore.watch(store, "#{@filling}/#{&1}", "#{@filling}/#{&1}", {:filling, &1})
        assert {:error, reason} = fill(watch)

        # xenstored returns E2BIG; oxenstored returns EQUOTA, which Linux does not know and maps to
        # EINVAL.
        assert reason in [:e2big, :einval]
        assert Tube.open(5, timeout: 10_000) == {:error, reason}
        assert_nothing_left()
        # As many as a tube needs.
        for n <- 1..2, do: :ok = Xenstore.unwatch(store, {:filling, n})
        Eventually.true!(fn -> match?({:ok, _tube}, Tube.open(5, timeout: 30_000)) end, 60_000)
      end,
      timeout: 90_000
    )
  end

  def fill(make, n \\ 1) do
    case make.(n) do
      :ok when n < @many -> fill(make, n + 1)
      result -> result
    end
  end

  def assert_nothing_left do
    Eventually.true!(fn -> DynamicSupervisor.count_children(Tube.Connections).active == 0 end)
    assert %{links: 0, pages: 0} = Tube.Native.live_counts()
    {:ok, store} = Tube.Domain.store()
    assert {:error, :enoent} = Xenstore.directory(store, "/local/domain/7/data/nock")
  end
end
