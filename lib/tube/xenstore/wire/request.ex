defmodule Tube.Xenstore.Wire.Request do
  @moduledoc false
  # One request and its reply: encodes the arguments of each operation, and decodes the payload of
  # its reply. Strings end in a NUL, except for the value of WRITE.

  alias Tube.Xenstore.Wire.{Codec, Path, Perms}

  @type path :: String.t()

  @typedoc "An operation that is exactly one request."
  @type t ::
          {:read, path()}
          | {:write, path(), iodata()}
          | {:mkdir, path()}
          | {:rm, path()}
          | {:directory, path()}
          | {:directory_part, path(), offset :: non_neg_integer()}
          | {:get_perms, path()}
          | {:set_perms, path(), Perms.t()}
          | {:watch, path(), token :: String.t()}
          | {:unwatch, path(), token :: String.t()}
          | :transaction_start
          | {:transaction_end, commit? :: boolean()}

  @doc "Encodes the packet type and payload of a request; `:einval` if it is malformed."
  @spec encode(term()) :: {:ok, Codec.type(), iodata()} | {:error, :einval}
  def encode({type, path}) when type in [:read, :mkdir, :rm, :directory, :get_perms],
    do: with_path(type, path, [])

  def encode({:write, path, value}) when is_binary(value) or is_list(value) do
    # An invalid list raises here, not when it is sent.
    with_path(:write, path, IO.iodata_to_binary(value))
  rescue
    ArgumentError -> {:error, :einval}
  end

  def encode({:directory_part, path, offset}) when is_integer(offset) and offset >= 0,
    do: with_path(:directory_part, path, [Integer.to_string(offset), 0])

  def encode({:set_perms, path, perms}) do
    with {:ok, list} <- Perms.format(perms), do: with_path(:set_perms, path, list)
  end

  def encode({type, path, token}) when type in [:watch, :unwatch],
    do: {:ok, type, [path, 0, token, 0]}

  def encode(:transaction_start), do: {:ok, :transaction_start, [0]}
  def encode({:transaction_end, true}), do: {:ok, :transaction_end, ["T", 0]}
  def encode({:transaction_end, false}), do: {:ok, :transaction_end, ["F", 0]}
  def encode(_other), do: {:error, :einval}

  @doc "Decodes the payload of a successful reply to this request."
  @spec decode(t(), binary()) :: :ok | {:ok, term()} | {:error, :protocol}
  def decode({:read, _path}, payload), do: {:ok, :binary.copy(payload)}
  def decode({:directory, _path}, payload), do: names(payload)
  def decode({:get_perms, _path}, payload), do: Perms.parse(payload)

  def decode({:directory_part, _path, _offset}, payload) do
    case :binary.split(payload, <<0>>) do
      [generation, part] -> {:ok, {:binary.copy(generation), :binary.copy(part)}}
      _no_generation -> {:error, :protocol}
    end
  end

  def decode(:transaction_start, payload) do
    case payload |> String.trim_trailing(<<0>>) |> Integer.parse() do
      {id, ""} when id in 1..0xFFFFFFFF -> {:ok, id}
      _other -> {:error, :protocol}
    end
  end

  # All others get the reply "OK", which holds nothing to decode.
  def decode(_request, _payload), do: :ok

  @doc "Splits a list of strings that each end in a NUL."
  @spec names(binary()) :: {:ok, [String.t()]} | {:error, :protocol}
  def names(<<>>), do: {:ok, []}

  def names(payload) do
    case payload |> :binary.copy() |> :binary.split(<<0>>, [:global]) |> Enum.split(-1) do
      {names, [<<>>]} -> {:ok, names}
      _not_closed -> {:error, :protocol}
    end
  end

  defp with_path(type, path, rest) do
    if Path.valid?(path), do: {:ok, type, [path, 0, rest]}, else: {:error, :einval}
  end
end
