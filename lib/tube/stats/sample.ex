defmodule Tube.Stats.Sample do
  @moduledoc false
  # The counters of one end of a tube as one line of text, see docs/wire.md section 9.
  #
  # One line rather than a node each: one write keeps counters of one moment together.

  alias Tube.Stats.Snapshot

  @doc "Encodes the line. `time` is in milliseconds since any fixed moment."
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
