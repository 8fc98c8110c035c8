defmodule Tube.Options do
  @moduledoc false
  # Every option of the public door, in one table: its type, default and meaning. Validation,
  # error texts and the option lists in the documentation all come from it.

  @max_domid 0x7FEF
  @max_message 0x7FFF_FFFF
  @max_ms 86_400_000

  # {key, type, default, places, doc}; places: where the option may be given.
  @table [
    {:service, :service, "default", [:open, :listen],
     "name of the service at the tip, 1 to 64 bytes of UTF-8"},
    {:tid, {:maybe, {:integer, 0, 0xFFFF_FFFF}}, nil, [:open],
     "number of the tube between this pair; the lowest free one by default"},
    {:peers, :peers, :any, [:listen],
     "`:any`, or the list of domids that may open tubes to this service"},
    {:backlog, {:integer, 1, 1024}, 128, [:listen],
     "tubes that may wait to be accepted; further ones are refused"},
    {:max_per_peer, {:integer, 1, 4096}, 256, [:listen],
     "tubes that one peer domain may hold to this service at a time"},
    {:active, :active, true, [:open, :listen, :setopts],
     "`true`, `false`, `:once`, or a number of messages from 1 to 32767, as in `:inet.setopts/2`"},
    {:mode, {:one_of, [:tube, :port]}, :tube, [:open, :listen],
     "form of the messages to the owner: `{:tube, tube, data}`, or a port's `{pid, {:data, data}}`, with a link"},
    {:ring, :ring, 65_536, [:open, :listen],
     "bytes of each ring: a power of two from 4096 to 1048576; the tip's choice counts"},
    {:max_message, {:integer, 1, @max_message}, 67_108_864, [:open, :listen],
     "largest message in bytes, sent or received"},
    {:timeout, {:integer, 1, @max_ms}, 5_000, [:open, :listen],
     "milliseconds that the handshake may take"},
    {:linger, {:integer, 0, @max_ms}, 5_000, [:open, :listen],
     "milliseconds that closing waits for the peer's confirmation"},
    {:send_timeout, :timeout, :infinity, [:open, :listen, :setopts],
     "milliseconds that a send may wait for space in the ring, or `:infinity`"}
  ]

  @type place :: :open | :listen | :setopts
  @type t :: %{atom => term}

  @doc """
  Checks `options` for `place` and fills in the defaults (none for `:setopts`).

  Raises `ArgumentError` naming the key, the value and what is allowed.
  """
  @spec validate!(term, place) :: t
  def validate!(options, place) do
    allowed =
      for {key, type, default, places, _} <- @table, place in places, do: {key, type, default}

    given = options |> pairs!(place) |> Map.new(&check!(&1, allowed, place))
    if place == :setopts, do: given, else: Map.merge(defaults(allowed), given)
  end

  @doc "A domid that a peer may have, or ArgumentError."
  @spec domid!(term) :: 0..0x7FEF
  def domid!(domid) when is_integer(domid) and domid in 0..@max_domid, do: domid

  def domid!(other) do
    raise ArgumentError,
          "invalid peer #{inspect(other)}: a domid is an integer from 0 to #{@max_domid} (0x7FEF)"
  end

  @doc "A time limit in milliseconds, or `:infinity`, or ArgumentError."
  @spec timeout!(term) :: timeout
  def timeout!(value) do
    if valid?(:timeout, value) do
      value
    else
      raise ArgumentError, "invalid timeout #{inspect(value)}: allowed is #{allowed(:timeout)}"
    end
  end

  @doc "The options of `place` as a Markdown list, for the documentation."
  @spec docs(place) :: String.t()
  def docs(place) do
    Enum.map_join(for(row <- @table, place in elem(row, 3), do: row), "\n", fn
      {key, _type, _default, _places, doc} when place == :setopts ->
        "  * `:#{key}` - #{doc}"

      {key, _type, nil, _places, doc} ->
        "  * `:#{key}` - #{doc}"

      {key, _type, default, _places, doc} ->
        "  * `:#{key}` - #{doc} (default `#{inspect(default)}`)"
    end)
  end

  defp pairs!(options, place) do
    if Keyword.keyword?(options) do
      options
    else
      raise ArgumentError,
            "invalid options #{inspect(options)} for #{place}: a keyword list is allowed"
    end
  end

  defp check!({key, value}, allowed, place) do
    case List.keyfind(allowed, key, 0) do
      nil ->
        known = Enum.map_join(allowed, ", ", &inspect(elem(&1, 0)))

        raise ArgumentError,
              "unknown option #{inspect(key)} (#{inspect(value)}) for #{place}: allowed are #{known}"

      {_key, type, _default} ->
        if valid?(type, value) do
          {key, value}
        else
          raise ArgumentError,
                "invalid value #{inspect(value)} for option #{inspect(key)}: allowed is #{allowed(type)}"
        end
    end
  end

  defp defaults(allowed), do: Map.new(allowed, fn {key, _type, default} -> {key, default} end)

  defp valid?({:integer, low, high}, v), do: is_integer(v) and v in low..high
  defp valid?({:maybe, type}, v), do: v == nil or valid?(type, v)
  defp valid?({:one_of, values}, v), do: v in values
  defp valid?(:active, v), do: is_boolean(v) or v == :once or (is_integer(v) and v in 1..32_767)
  defp valid?(:timeout, v), do: v == :infinity or (is_integer(v) and v in 0..@max_ms)

  defp valid?(:service, v),
    do: is_binary(v) and byte_size(v) in 1..64 and String.valid?(v)

  defp valid?(:peers, :any), do: true

  defp valid?(:peers, v),
    do: is_list(v) and v != [] and Enum.all?(v, &(is_integer(&1) and &1 in 0..@max_domid))

  defp valid?(:ring, v),
    do: is_integer(v) and v in 4096..1_048_576 and Bitwise.band(v, v - 1) == 0

  defp allowed({:integer, low, high}), do: "an integer from #{low} to #{high}"
  defp allowed({:maybe, type}), do: allowed(type) <> ", or nil"
  defp allowed({:one_of, values}), do: Enum.map_join(values, " or ", &inspect/1)
  defp allowed(:active), do: "true, false, :once, or an integer from 1 to 32767"
  defp allowed(:timeout), do: "an integer from 0 to #{@max_ms} (milliseconds), or :infinity"
  defp allowed(:service), do: "a string of 1 to 64 bytes of UTF-8"
  defp allowed(:peers), do: ":any, or a list of domids from 0 to #{@max_domid}, not empty"
  defp allowed(:ring), do: "a power of two from 4096 to 1048576"
end
