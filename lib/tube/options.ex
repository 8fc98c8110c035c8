defmodule Tube.Options do
  @moduledoc false
  # Every option of the public API in one table: its type, default and meaning. Validation, error
  # texts and the option lists in the documentation all come from it.

  @max_domid Tube.Paths.max_domid()
  @max_message 0x7FFF_FFFF
  @max_ms 86_400_000
  @max_poll 10_000

  # {key, type, default, places, doc}. `places` are the functions that take the option.
  @table [
    {:name, :name, nil, [:start_link],
     "name of the listener, as for a `GenServer`; `accept/2` takes the same name"},
    {:service, :service, "default", [:open, :listen, :getopts],
     "name of the service at the tip, 1 to 64 bytes of UTF-8"},
    {:tid, {:maybe, {:integer, 0, 0xFFFF_FFFF}}, nil, [:open],
     "number of the tube between this pair; the lowest free one by default"},
    {:peers, :peers, :any, [:listen],
     "`:any`, or the list of domids that may open tubes to this service"},
    {:backlog, {:integer, 1, 1024}, 128, [:listen],
     "number of tubes that may wait to be accepted; further ones are refused"},
    {:max_per_peer, {:integer, 1, 4096}, 256, [:listen],
     "number of tubes that one peer domain may have to this service at a time"},
    {:active, :active, true, [:open, :listen, :setopts, :getopts],
     "`true`, `false`, `:once`, or a number of messages from 1 to 32767, as in `:inet.setopts/2`"},
    {:mode, {:one_of, [:tube, :port]}, :tube, [:open, :listen, :getopts],
     "`:tube` sends the owner `{:tube, tube, data}`; `:port` links to the owner and sends it " <>
       "`{pid, {:data, data}}`, as a port does"},
    {:ring, :ring, 65_536, [:open, :listen, :getopts],
     "size of each ring in bytes: a power of two from 4096 to 1048576; the tip's choice counts"},
    {:max_message, {:integer, 1, @max_message}, 67_108_864, [:open, :listen, :getopts],
     "size of the largest message in bytes, sent or received"},
    {:timeout, {:integer, 1, @max_ms}, 5_000, [:open, :listen],
     "milliseconds that the handshake may take"},
    {:linger, {:integer, 0, @max_ms}, 5_000, [:open, :listen, :getopts],
     "milliseconds that closing waits for the peer's confirmation"},
    {:send_timeout, :timeout, :infinity, [:open, :listen, :setopts, :getopts],
     "milliseconds that a send may wait for room in the ring, or `:infinity`"},
    {:on_full, {:one_of, [:wait, :drop]}, :wait, [:open, :listen, :getopts],
     "what happens to a port's `{:command, data}` when the ring has no room: it waits in the " <>
       "tube's process, or is dropped and counted as `:send_dropped`"},
    {:poll, :poll, :off, [:open, :listen, :setopts, :getopts],
     "`{:adaptive, microseconds}` to poll for messages for up to that long (1 to 10000) before " <>
       "sleeping, or `:off`: see \"Polling\" in `Tube`"},
    {:timeout, :timeout, nil, [:send],
     "milliseconds that this send may wait, or `:infinity`; by default the tube's `:send_timeout`"},
    {:nosuspend, {:one_of, [true, false]}, false, [:send],
     "`true` to not wait at all, the same as a `:timeout` of 0"}
  ]

  @type place :: :open | :listen | :start_link | :setopts | :getopts | :send
  @type t :: %{atom => term}

  @doc """
  Checks `options` for `place` and fills in the defaults (none for `:setopts`).

  Raises `ArgumentError` naming the key, the value and what is allowed.
  """
  @spec validate!(term, place) :: t
  def validate!(options, place) do
    allowed = for {key, type, default, _places, _doc} <- rows(place), do: {key, type, default}
    given = options |> pairs!(place) |> Map.new(&check!(&1, allowed, place))
    if place == :setopts, do: given, else: Map.merge(defaults(allowed), given)
  end

  # `start_link/1` takes the options of `listen/1` as well.
  defp rows(place) do
    for {_key, _type, _default, places, _doc} = row <- @table,
        place in places or (place == :start_link and :listen in places),
        do: row
  end

  @doc "Splits the `:id` of a child specification from the options of `place`."
  @spec id!(term, place) :: {term, keyword}
  def id!(options, place), do: options |> pairs!(place) |> Keyword.pop(:id)

  @doc "Checks a list of option names for `place`. Raises `ArgumentError`."
  @spec names!(term, place) :: [atom]
  def names!(names, place) do
    known = for row <- rows(place), do: elem(row, 0)

    if is_list(names) and names -- known == [] do
      names
    else
      raise ArgumentError,
            "invalid option names #{inspect(names)} for #{place}: allowed is a list of " <>
              Enum.map_join(known, ", ", &inspect/1)
    end
  end

  @doc "The largest `:max_message`."
  @spec max_message() :: pos_integer
  def max_message, do: @max_message

  @doc "Checks the domid of a peer. Raises `ArgumentError`."
  @spec domid!(term) :: Tube.Paths.domid()
  def domid!(domid) when is_integer(domid) and domid in 0..@max_domid, do: domid

  def domid!(other) do
    raise ArgumentError,
          "invalid peer #{inspect(other)}: allowed is a domid, an integer from 0 to " <>
            "#{@max_domid} (0x7FEF)"
  end

  @doc "Checks a time limit in milliseconds, or `:infinity`. Raises `ArgumentError`."
  @spec timeout!(term) :: timeout
  def timeout!(value) do
    if valid?(:timeout, value) do
      value
    else
      raise ArgumentError, "invalid timeout #{inspect(value)}: allowed is #{allowed(:timeout)}"
    end
  end

  @doc "Returns the options of `place` as a Markdown list, for the documentation."
  @spec docs(place) :: String.t()
  def docs(place) do
    Enum.map_join(rows(place), "\n", fn
      {key, _type, _default, _places, doc} when place in [:setopts, :getopts] ->
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
            "invalid options #{inspect(options)} for #{place}: allowed is a keyword list"
    end
  end

  defp check!({key, value}, allowed, place) do
    case List.keyfind(allowed, key, 0) do
      nil ->
        known = Enum.map_join(allowed, ", ", &inspect(elem(&1, 0)))

        raise ArgumentError,
              "unknown option #{inspect(key)} (#{inspect(value)}) for #{place}: allowed are " <>
                known

      {_key, type, _default} ->
        if valid?(type, value) do
          {key, value}
        else
          raise ArgumentError,
                "invalid value #{inspect(value)} for option #{inspect(key)}: allowed is " <>
                  allowed(type)
        end
    end
  end

  defp defaults(allowed), do: Map.new(allowed, fn {key, _type, default} -> {key, default} end)

  defp valid?({:integer, low, high}, v), do: is_integer(v) and v in low..high
  defp valid?({:maybe, type}, v), do: v == nil or valid?(type, v)
  defp valid?({:one_of, values}, v), do: v in values

  defp valid?(:name, v),
    do:
      (is_atom(v) and v != nil) or match?({:via, m, _} when is_atom(m), v) or
        match?({:global, _}, v)

  defp valid?(:active, v), do: is_boolean(v) or v == :once or (is_integer(v) and v in 1..32_767)
  defp valid?(:timeout, v), do: v == :infinity or (is_integer(v) and v in 0..@max_ms)

  defp valid?(:poll, :off), do: true
  defp valid?(:poll, {:adaptive, v}), do: valid?({:integer, 1, @max_poll}, v)
  defp valid?(:poll, _other), do: false

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
  defp allowed(:name), do: "an atom, {:global, term} or {:via, module, term}"
  defp allowed(:active), do: "true, false, :once, or an integer from 1 to 32767"
  defp allowed(:timeout), do: "an integer from 0 to #{@max_ms} (milliseconds), or :infinity"
  defp allowed(:poll), do: ":off, or {:adaptive, microseconds} with 1 to #{@max_poll}"
  defp allowed(:service), do: "a string of 1 to 64 bytes of UTF-8"
  defp allowed(:peers), do: ":any, or a non-empty list of domids from 0 to #{@max_domid}"
  defp allowed(:ring), do: "a power of two from 4096 to 1048576"
end
