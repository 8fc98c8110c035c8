defmodule Tube.Xenstore.Wire.Codec do
  @moduledoc false
  # Packets of the xenstore wire protocol (xen/include/public/io/xs_wire.h), without any knowledge
  # of sockets, processes or payloads.
  #
  #     u32 type | u32 req_id | u32 tx_id | u32 length | payload (at most 4096 bytes)
  #
  # All four words are in native byte order, since both ends share a machine.

  @header_size 16

  # XENSTORE_PAYLOAD_MAX. A longer request makes xenstored drop the connection, and a guest never
  # gets another one, so this side keeps the limit.
  @max_payload 4096

  # Numbers are explicit because 20 is a hole (XS_RESTRICT, removed). A client that counts sends
  # 21 = RESET_WATCHES when it means DIRECTORY_PART, and loses all its watches.
  @types [
    control: 0,
    directory: 1,
    read: 2,
    get_perms: 3,
    watch: 4,
    unwatch: 5,
    transaction_start: 6,
    transaction_end: 7,
    introduce: 8,
    release: 9,
    get_domain_path: 10,
    write: 11,
    mkdir: 12,
    rm: 13,
    set_perms: 14,
    watch_event: 15,
    error: 16,
    is_domain_introduced: 17,
    resume: 18,
    set_target: 19,
    reset_watches: 21,
    directory_part: 22,
    get_feature: 23,
    set_feature: 24,
    get_quota: 25,
    set_quota: 26
  ]

  @type type ::
          unquote(@types |> Keyword.keys() |> Enum.reduce(&{:|, [], [&1, &2]}))

  @typedoc "One complete packet."
  @type packet :: {type(), req_id :: 0..0xFFFFFFFF, tx_id :: 0..0xFFFFFFFF, payload :: binary()}

  @typedoc "The bytes of an incomplete packet: at most a header and a payload."
  @type rest :: binary()

  @doc "The maximum size of a payload in bytes."
  @spec max_payload() :: pos_integer()
  def max_payload, do: @max_payload

  @doc "Encodes one packet; `:e2big` if its payload exceeds the limit."
  @spec encode(type(), non_neg_integer(), non_neg_integer(), iodata()) ::
          {:ok, binary()} | {:error, :e2big}
  def encode(type, req_id, tx_id, payload) do
    payload = IO.iodata_to_binary(payload)

    if byte_size(payload) <= @max_payload do
      {:ok,
       <<number(type)::32-native, req_id::32-native, tx_id::32-native,
         byte_size(payload)::32-native, payload::binary>>}
    else
      {:error, :e2big}
    end
  end

  @doc """
  Takes the next bytes of a stream, split anywhere, and returns the packets that are now complete.

  An impossible header is an error at once, before its payload has arrived: a byte stream cannot be
  resynchronized, so the connection has to be closed.
  """
  @spec feed(rest(), binary()) :: {:ok, [packet()], rest()} | {:error, String.t()}
  def feed(rest, bytes), do: packets(join(rest, bytes), [])

  defp join(<<>>, bytes), do: bytes
  defp join(rest, bytes), do: rest <> bytes

  defp packets(
         <<number::32-native, id::32-native, tx::32-native, size::32-native, more::binary>>,
         done
       ) do
    with {:ok, type} <- type(number),
         :ok <- check_size(size) do
      if byte_size(more) >= size do
        {payload, more} = :erlang.split_binary(more, size)
        packets(more, [{type, id, tx, payload} | done])
      else
        rest = <<number::32-native, id::32-native, tx::32-native, size::32-native, more::binary>>

        {:ok, Enum.reverse(done), rest}
      end
    end
  end

  # Copied, so that a few bytes do not keep a whole chunk of the stream in memory.
  defp packets(rest, done) when byte_size(rest) < @header_size do
    {:ok, Enum.reverse(done), :binary.copy(rest)}
  end

  defp check_size(size) when size <= @max_payload, do: :ok
  defp check_size(size), do: {:error, "a packet of #{size} bytes, #{@max_payload} are allowed"}

  for {type, number} <- @types do
    defp number(unquote(type)), do: unquote(number)
    defp type(unquote(number)), do: {:ok, unquote(type)}
  end

  defp type(number), do: {:error, "a packet of unknown type #{number}"}
end
