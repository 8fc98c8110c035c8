defmodule Tube.Stats.Snapshot do
  @moduledoc false
  # All connected tubes of this VM with their counters, for `mix tube.list` and
  # `Tube.Stats.Publisher`. It calls no process of a tube, so none can block it.

  alias Tube.Connection.Registry
  alias Tube.Native

  @typedoc "A tube, and its counters as `Tube.Native.info/1` gives them."
  @type tube :: %{
          pid: pid,
          role: :nock | :tip,
          me: Tube.domid(),
          peer: Tube.domid(),
          tid: Tube.Paths.tid(),
          service: String.t(),
          native: map
        }

  @doc "At most `most` tubes, by role, peer and number. Tubes that end meanwhile are left out."
  @spec take(pos_integer | :all) :: [tube]
  def take(most \\ :all) do
    records = Enum.sort_by(Registry.records(), &{&1.role, &1.peer, &1.tid})
    records = if most == :all, do: records, else: Enum.take(records, most)

    for record <- records, {:ok, native} <- [Native.info(record.tube.id)] do
      record
      |> Map.take([:role, :me, :peer, :tid, :service])
      |> Map.merge(%{pid: record.tube.pid, native: native})
    end
  end
end
