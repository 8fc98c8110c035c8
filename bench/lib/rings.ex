defmodule Tube.Bench.Rings do
  @moduledoc false
  # Who cannot have the rings that were asked for gets smaller ones, and would be compared with something
  # else then.

  alias Tube.Bench.Carrier
  alias Tube.Test.VM

  @doc """
  Raises unless this end of a tube has rings of the size that all are measured with. One that is closed has
  none, as that of a node's connection before may be.
  """
  @spec check!(VM.t(), Tube.t()) :: :ok
  def check!(vm, tube) do
    case VM.call(vm, Tube, :info, [tube]) do
      {:ok, info} -> equal!("a tube", [info.rx.ring, info.tx.ring])
      {:error, :closed} -> :ok
    end
  end

  @doc "The same of sizes in bytes, of whatever it is."
  @spec equal!(String.t(), [pos_integer]) :: :ok
  def equal!(what, sizes) do
    wanted = Carrier.buffer()

    if Enum.all?(sizes, &(&1 == wanted)),
      do: :ok,
      else:
        raise(
          "#{what} has rings of #{Enum.join(sizes, " and ")} bytes where #{wanted} are measured: " <>
            "are pages left to share?"
        )
  end
end
