defmodule Tube.Stats.Snapshot do
  @moduledoc false
  # All connected tubes of this VM with what each has done so far: what `mix tube.list` prints and what
  # `Tube.Stats.Publisher` publishes. No process of a tube is asked, so none can hold this up.

  alias Tube.Connection.Registry
  alias Tube.Native

  @typedoc "A tube, and its counters as `Tube.Native.info/1` gives them."
  @type tube :: %{
          pid: pid,
          role: :nock | :tip,
          me: Tube.domid(),
          peer: Tube.domid(),
          tid: 0..0xFFFFFFFF,
          service: String.t(),
          native: map
        }

  @doc "By role, peer and number, `most` at most. A tube that ends while this looks is not among them."
  @spec take(pos_integer | :all) :: [tube]
  def take(most \\ :all) do
    entries = Enum.sort_by(Registry.records(), &{&1.role, &1.peer, &1.tid})
    entries = if most == :all, do: entries, else: Enum.take(entries, most)

    for entry <- entries, {:ok, native} <- [Native.info(entry.tube.id)] do
      entry
      |> Map.take([:role, :me, :peer, :tid, :service])
      |> Map.merge(%{pid: entry.tube.pid, native: native})
    end
  end
end
