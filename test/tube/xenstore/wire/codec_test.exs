defmodule Tube.Xenstore.Wire.CodecTest do
  use ExUnit.Case, async: true

  import Tube.Test.Properties
  import :proper_types, only: [binary: 0, integer: 2, list: 1, oneof: 1]

  alias Tube.Xenstore.Wire.Codec

  @types [
    {0, :control},
    {1, :directory},
    {2, :read},
    {3, :get_perms},
    {4, :watch},
    {5, :unwatch},
    {6, :transaction_start},
    {7, :transaction_end},
    {8, :introduce},
    {9, :release},
    {10, :get_domain_path},
    {11, :write},
    {12, :mkdir},
    {13, :rm},
    {14, :set_perms},
    {15, :watch_event},
    {16, :error},
    {17, :is_domain_introduced},
    {18, :resume},
    {19, :set_target},
    {21, :reset_watches},
    {22, :directory_part},
    {23, :get_feature},
    {24, :set_feature},
    {25, :get_quota},
    {26, :set_quota}
  ]

  test "numbers are those of xs_wire.h, with the hole at 20" do
    for {number, type} <- @types do
      assert {:ok, <<^number::32-native, _::binary>>} = Codec.encode(type, 1, 0, "")
    end
  end

  test "a packet, byte for byte" do
    assert Codec.encode(:read, 0x01020304, 0x0A0B0C0D, ["/a", 0]) ==
             {:ok,
              <<2::32-native, 0x01020304::32-native, 0x0A0B0C0D::32-native, 3::32-native, "/a",
                0>>}
  end

  test "a payload of 4096 bytes is the longest" do
    assert {:ok, <<_header::binary-16, payload::binary>>} =
             Codec.encode(:write, 1, 0, String.duplicate("x", 4096))

    assert byte_size(payload) == 4096
    assert Codec.encode(:write, 1, 0, String.duplicate("x", 4097)) == {:error, :e2big}
  end

  test "a stream gives the same packets, wherever it is cut" do
    type = @types |> Enum.map(&elem(&1, 1)) |> oneof()
    packet = {type, integer(0, 0xFFFFFFFF), integer(0, 0xFFFFFFFF), binary()}

    check({list(packet), cuts()}, fn {packets, cuts} ->
      bytes =
        for {type, id, tx, payload} <- packets, into: "" do
          {:ok, bytes} = Codec.encode(type, id, tx, payload)
          bytes
        end

      assert feed(cut(bytes, cuts)) == packets
    end)
  end

  test "at most one packet of a stream is kept" do
    {:ok, bytes} = Codec.encode(:read, 1, 0, :binary.copy("x", 4096))

    check(integer(0, byte_size(bytes) - 1), fn length ->
      part = binary_part(bytes, 0, length)
      assert {:ok, [], ^part} = Codec.feed("", part)

      assert {:ok, [{:read, 1, 0, _}], ""} =
               Codec.feed(part, binary_part(bytes, length, byte_size(bytes) - length))
    end)
  end

  test "an impossible header is an error before its payload arrives" do
    assert {:error, text} = Codec.feed("", header(2, 4097))
    assert text =~ "4097"
    assert {:error, _} = Codec.feed("", header(2, 0xFFFFFFFF))

    for number <- [20, 27, 0xFFFFFFFF] do
      assert {:error, text} = Codec.feed("", header(number, 0))
      assert text =~ "#{number}"
    end
  end

  test "an impossible header is an error wherever it is cut" do
    for length <- 0..15 do
      {head, tail} = :erlang.split_binary(header(20, 0), length)
      assert {:ok, [], rest} = Codec.feed("", head)
      assert {:error, _} = Codec.feed(rest, tail)
    end
  end

  defp feed(pieces) do
    {packets, ""} =
      Enum.flat_map_reduce(pieces, "", fn piece, rest ->
        {:ok, packets, rest} = Codec.feed(rest, piece)
        {packets, rest}
      end)

    packets
  end

  defp header(number, size),
    do: <<number::32-native, 1::32-native, 0::32-native, size::32-native>>
end
