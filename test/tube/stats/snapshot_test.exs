defmodule Tube.Stats.SnapshotTest do
  use Tube.Test.OneVM, async: true

  test "all tubes in order, or the first few, with their counters", %{vm: vm} do
    {all, some} =
      VM.run(vm, fn ->
        {:ok, listener} = Tube.listen(active: false)

        tubes =
          for _ <- 1..2 do
            {:ok, nock} = Tube.open(5, active: false)
            {:ok, _tip} = Tube.accept(listener)
            nock
          end

        :ok = Tube.send(List.last(tubes), "hello")
        {Tube.Stats.Snapshot.take(), Tube.Stats.Snapshot.take(2)}
      end)

    assert for(tube <- all, do: {tube.role, tube.peer, tube.tid}) ==
             [{:nock, 5, 0}, {:nock, 5, 1}, {:tip, 5, 0}, {:tip, 5, 1}]

    assert for(tube <- all, do: tube.native.tx.bytes) == [0, 5, 0, 0]
    assert some == Enum.take(all, 2)
  end
end
