defimpl Inspect, for: Tube do
  # Shows a tube by its name (`Tube.Label.name/1`) and service, which are the same at both ends:
  #
  #     #Tube<7:0 -> 5 "echo" connected 64KiB>
  #
  # A tube of distributed Erlang is marked: `"dist-a" distribution connected`.
  #
  # Does not call the tube's process, which may be the one that inspects.

  alias Tube.Connection.Registry
  alias Tube.{Label, Native}

  def inspect(%{id: id, pid: pid}, _options) when is_integer(id) and is_pid(pid) do
    case known(id, pid) do
      {:ok, record, native} ->
        "#Tube<#{Label.name(record)} #{Kernel.inspect(record.service)}#{mark(record)} " <>
          "#{state(native)} #{rings(native)}>"

      {:error, :closed} ->
        "#Tube<#{Kernel.inspect(pid)} closed>"

      {:error, :elsewhere} ->
        "#Tube<#{Kernel.inspect(pid)} of another node>"
    end
  end

  def inspect(tube, options), do: Inspect.Any.inspect(tube, options)

  defp known(_id, pid) when node(pid) != node(), do: {:error, :elsewhere}

  defp known(id, pid) do
    with {:ok, %{tube: %{pid: ^pid}} = record} <- Registry.lookup(id),
         {:ok, native} <- Native.info(id) do
      {:ok, record, native}
    else
      _gone -> {:error, :closed}
    end
  rescue
    # No registry: the library is not running.
    ArgumentError -> {:error, :closed}
  end

  defp mark(%{mode: :dist}), do: " distribution"
  defp mark(_record), do: ""

  defp state(%{gone: true}), do: "lost"
  defp state(%{tx: %{finished: true}, rx: %{finished: true}}), do: "closing"
  defp state(%{tx: %{finished: true}}), do: "half-closed"
  defp state(%{rx: %{finished: true}}), do: "half-closed"
  defp state(_open), do: "connected"

  defp rings(%{tx: %{ring: bytes}, rx: %{ring: bytes}}), do: size(bytes)
  # The tip chose a smaller ring because room was short.
  defp rings(%{tx: %{ring: tx}, rx: %{ring: rx}}), do: "#{size(tx)}/#{size(rx)}"

  defp size(bytes), do: "#{div(bytes, 1024)}KiB"
end
