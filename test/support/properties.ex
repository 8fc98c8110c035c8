defmodule Tube.Test.Properties do
  @moduledoc false
  # PropEr in ExUnit. A property is a function with assertions about a generated value. If it fails,
  # it runs again, outside of PropEr, with the smallest failing value, so that ExUnit shows the
  # assertion.

  import ExUnit.Assertions

  @doc "Asserts that `fun` returns for `:runs` values of `type` (100), of up to `:size` (42)."
  @spec check(term(), (term() -> term()), keyword()) :: :ok
  def check(type, fun, opts \\ []) do
    property = proper(:forall, [type, &(fun.(&1) && true)])
    options = [:quiet, :long_result, numtests: opts[:runs] || 100, max_size: opts[:size] || 42]

    case proper(:quickcheck, [property, options]) do
      true ->
        :ok

      [value] ->
        fun.(value)
        flunk("failed once, and not again, for #{inspect(value, limit: :infinity)}")

      other ->
        flunk("PropEr gave up: #{inspect(other)}")
    end
  end

  @doc "Values of `type` changed by `fun`."
  @spec map(term(), (term() -> term())) :: term()
  def map(type, fun), do: bind(type, fun)

  @doc "A value whose type depends on a value of `type`."
  @spec bind(term(), (term() -> term())) :: term()
  def bind(type, fun), do: types(:bind, [type, fun, false])

  @doc "Lengths of pieces, for `cut/2`."
  @spec cuts() :: term()
  def cuts, do: types(:list, [types(:integer, [1, 40])])

  @doc "`bytes` cut at these lengths, the rest in one piece."
  @spec cut(binary(), [pos_integer()]) :: [binary()]
  def cut(bytes, [length | cuts]) when byte_size(bytes) > length do
    {piece, rest} = :erlang.split_binary(bytes, length)
    [piece | cut(rest, cuts)]
  end

  def cut(bytes, _cuts), do: [bytes]

  # PropEr comes with the system, not with mix, which would warn about each direct call.
  defp proper(function, arguments), do: apply(:proper, function, arguments)
  defp types(function, arguments), do: apply(:proper_types, function, arguments)
end
