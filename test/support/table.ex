defmodule Tube.Test.Table do
  @moduledoc """
  Named maps that live as long as the VM: no test's process owns them.
  """

  @doc "Updates the map `name`."
  @spec update(module, (map -> map)) :: :ok
  def update(name, fun), do: name |> agent() |> Agent.update(fun)

  @doc "Updates the map `name` and returns a value, like `Agent.get_and_update/2`."
  @spec get_and_update(module, (map -> {value, map})) :: value when value: term
  def get_and_update(name, fun), do: name |> agent() |> Agent.get_and_update(fun)

  @doc "Returns the value of `key` in the map `name`, or `default`."
  @spec get(module, term, term) :: term
  def get(name, key, default), do: name |> agent() |> Agent.get(&Map.get(&1, key, default))

  defp agent(name) do
    case Agent.start(fn -> %{} end, name: name) do
      {:ok, agent} -> agent
      {:error, {:already_started, agent}} -> agent
    end
  end
end
