defmodule Tube.Bench.Rings do
  @moduledoc false
  # Checks the sizes of rings: they are smaller than requested if memory is short, and a comparison
  # with such rings would be wrong.

  alias Tube.Bench.Carrier
  alias Tube.Test.VM

  @doc """
  Raises unless the rings of a tube have the size of all measurements. A closed tube, such as that
  of the previous connection of a node, has no rings.
  """
  @spec check!(VM.t(), Tube.t()) :: :ok
  def check!(vm, tube) do
    case VM.call(vm, Tube, :info, [tube]) do
      {:ok, info} -> equal!("a tube", [info.rx.ring, info.tx.ring])
      {:error, :closed} -> :ok
    end
  end

  @doc "Raises unless these sizes in bytes are right."
  @spec equal!(String.t(), [pos_integer]) :: :ok
  def equal!(what, sizes) do
    wanted = Carrier.buffer()

    if Enum.all?(sizes, &(&1 == wanted)),
      do: :ok,
      else:
        raise(
          "#{what} has rings of #{Enum.join(sizes, " and ")} bytes instead of #{wanted}; " <>
            "check that enough pages can be shared"
        )
  end
end
