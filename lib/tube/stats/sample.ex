defmodule Tube.Stats.Sample do
  @moduledoc false
  # The counters of one end of a tube as one line of text, as docs/wire.md section 9 has it.
  #
  # One line, not a node each: they belong to one moment, and one write keeps them together.

  alias Tube.Stats.Snapshot

  @doc "The line. `time` is in milliseconds since any moment that stays the same."
  @spec encode(Snapshot.tube(), non_neg_integer) :: String.t()
  def encode(%{native: %{tx: tx, rx: rx}}, time) do
    [
      time: time,
      sent: tx.messages,
      "sent-bytes": tx.bytes,
      "send-pending": tx.backlog,
      received: rx.messages,
      "received-bytes": rx.bytes,
      "receive-pending": rx.backlog,
      "full-waits": tx.waits,
      "empty-waits": rx.waits,
      bells: tx.bells + rx.bells,
      "bells-spared": tx.bells_spared + rx.bells_spared
    ]
    |> Enum.map_join(" ", fn {name, number} -> "#{name}=#{number}" end)
  end
end
