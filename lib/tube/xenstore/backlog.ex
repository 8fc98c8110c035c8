defmodule Tube.Xenstore.Backlog do
  @moduledoc false
  # The changed paths that wait for delivery to one subscriber: bounded, whatever happens in the
  # store, and fair between domains.
  #
  # A subscriber rereads on each event, so a path twice is the same as once, and a path stands for
  # everything below it. That allows merging, but not into the watched path itself: a guest that
  # watches /local/domain cannot list it, so the path of the event alone tells which domain has an
  # open request. So paths are kept per domain. A domain with more than @limit waiting paths becomes
  # one path, its directory. One domain's storm then delays another domain's event by one turn, and
  # no domain's event is lost.

  # How many paths of one domain may wait before they become one.
  @limit 64

  @opaque t :: {queue :: :queue.queue(String.t()), groups :: %{String.t() => :all | MapSet.t()}}

  @doc "An empty backlog."
  @spec new() :: t()
  def new, do: {:queue.new(), %{}}

  @doc "Adds a changed path."
  @spec push(t(), String.t()) :: t()
  def push({turns, groups}, path) do
    group = group(path)

    case groups do
      %{^group => :all} -> {turns, groups}
      %{^group => paths} -> {turns, %{groups | group => add(paths, path)}}
      _first -> {:queue.in(group, turns), Map.put(groups, group, add(MapSet.new(), path))}
    end
  end

  @doc "Takes the next path; domains take turns."
  @spec pop(t()) :: {String.t(), t()} | :empty
  def pop({turns, groups}) do
    case :queue.out(turns) do
      {:empty, _turns} -> :empty
      {{:value, group}, turns} -> take(group, Map.fetch!(groups, group), turns, groups)
    end
  end

  defp take(group, :all, turns, groups), do: {group, {turns, Map.delete(groups, group)}}

  defp take(group, paths, turns, groups) do
    path = Enum.at(paths, 0)
    rest = MapSet.delete(paths, path)

    if MapSet.size(rest) == 0,
      do: {path, {turns, Map.delete(groups, group)}},
      else: {path, {:queue.in(group, turns), %{groups | group => rest}}}
  end

  # Copied, so that a short path does not keep a whole chunk of the stream in memory.
  defp add(paths, path) do
    paths = MapSet.put(paths, :binary.copy(path))
    if MapSet.size(paths) > @limit, do: :all, else: paths
  end

  # /local/domain/<domid>; elsewhere the first name, since a guest cannot create nodes there.
  defp group("/local/domain/" <> rest), do: "/local/domain/" <> first(rest)
  defp group("/" <> rest), do: "/" <> first(rest)
  defp group(special), do: special

  defp first(path), do: path |> :binary.split("/") |> hd()
end
