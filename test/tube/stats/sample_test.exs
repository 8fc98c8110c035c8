defmodule Tube.Stats.SampleTest do
  use ExUnit.Case, async: true

  alias Tube.Stats.Sample

  test "a line has the counters of one moment" do
    direction = %{messages: 1, bytes: 2, backlog: 3, waits: 4, bells: 5, bells_spared: 6}

    assert Sample.encode(%{native: %{tx: direction, rx: %{direction | messages: 7}}}, 99) ==
             "time=99 sent=1 sent-bytes=2 send-pending=3 received=7 received-bytes=2 " <>
               "receive-pending=3 full-waits=4 empty-waits=4 bells=10 bells-spared=12"
  end
end
