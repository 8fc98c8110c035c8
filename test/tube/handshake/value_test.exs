defmodule Tube.Handshake.ValueTest do
  use ExUnit.Case, async: true

  alias Tube.Handshake.Value

  test "states are one digit from 0 to 8" do
    assert for(n <- 0..8, do: Value.state("#{n}")) == for(n <- 0..8, do: {:ok, n})

    for text <- ["", "9", "-1", "03", "3 ", " 3", "3\0", "three", "33"],
        do: assert(Value.state(text) == :error)
  end

  test "references and ports are 32 bits in decimal" do
    for n <- [0, 1, 8, 0xFFFFFFFF], do: assert(Value.u32("#{n}") == {:ok, n})

    for text <- [
          "",
          "4294967296",
          "-1",
          "+1",
          "01",
          "0x10",
          "1 ",
          "1.0",
          String.duplicate("1", 1000)
        ],
        do: assert(Value.u32(text) == :error)
  end

  test "a nonce is 64 bits in lower-case hex, and the next one differs" do
    assert Value.nonce?("0123456789abcdef")

    for text <- ["", "0123456789abcde", "0123456789ABCDEF", "0123456789abcdef\n", nil],
        do: refute(Value.nonce?(text))

    assert Value.next("00000000000000ff") == "0000000000000100"
    assert Value.next("ffffffffffffffff") == "0000000000000000"
  end

  test "refusals are words of a fixed list, both ways" do
    for word <- [:refused, :version, :busy, :timeout, :protocol, :enospc, :closed],
        do: assert(word |> Value.refusal() |> Value.refused() == word)

    assert Value.refusal({:xenstore, "EWHATEVER"}) == "refused"
    assert Value.refused("no such atom in this vm #{System.unique_integer()}") == :refused
  end
end
