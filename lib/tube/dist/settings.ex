defmodule Tube.Dist.Settings do
  @moduledoc false
  # The settings of distribution: the key `tube_dist` in the environment of the application kernel,
  # the only environment that exists when distribution starts.
  #
  #     erl -kernel tube_dist '[{peers,[5,7]},{fragments,false}]'
  #     config :kernel, tube_dist: [peers: [5, 7]]

  defstruct peers: :any, ring: 1_048_576, fragments: true, connect: true, poll: :off

  @type t :: %__MODULE__{
          peers: :any | [Tube.domid()],
          ring: pos_integer,
          fragments: boolean,
          connect: boolean,
          poll: Tube.Connection.BusyPoller.option()
        }

  @keys [:peers, :ring, :fragments, :connect, :poll]

  @doc "Reads and checks the settings."
  @spec get() :: {:ok, t} | {:error, charlist}
  def get do
    given = :application.get_env(:kernel, :tube_dist, [])

    if Keyword.keyword?(given) do
      Enum.reduce_while(given, {:ok, %__MODULE__{}}, fn {key, value}, {:ok, settings} ->
        case check(key, value) do
          :ok -> {:cont, {:ok, Map.put(settings, key, value)}}
          {:error, allowed} -> {:halt, wrong(key, value, allowed)}
        end
      end)
    else
      wrong(:tube_dist, given, "allowed is a list of pairs")
    end
  end

  defp check(key, value) when key in [:fragments, :connect] and not is_boolean(value),
    do: {:error, "allowed is true or false"}

  # These are options of a listener, so `Tube.Options` checks them.
  defp check(key, value) when key in [:peers, :ring, :poll] do
    Tube.Options.validate!([{key, value}], :listen)
    :ok
  rescue
    error in ArgumentError -> {:error, Exception.message(error)}
  end

  defp check(key, _value) when key in @keys, do: :ok
  defp check(_key, _value), do: {:error, "allowed are #{Enum.map_join(@keys, ", ", &inspect/1)}"}

  defp wrong(key, value, allowed),
    do:
      {:error,
       to_charlist("kernel's tube_dist: #{inspect(key)} is #{inspect(value)}: #{allowed}")}
end
