defimpl Inspect, for: Tube do
  # A tube is called the same at both ends: its nock and number, its tip, its service.
  #
  #     #Tube<7:0 -> 5 "echo" connected 64KiB>
  #
  # One of distributed Erlang is marked: `"dist-a" distribution connected`.
  #
  # Nothing is asked of the tube's process, which may be the one that inspects.

  alias Tube.Connection.Registry
  alias Tube.Native

  def inspect(%{id: id, pid: pid}, _options) when is_integer(id) and is_pid(pid) do
    case known(id, pid) do
      {:ok, entry, native} ->
        "#Tube<#{name(entry)}#{mark(entry)} #{state(native)} #{rings(native)}>"

      {:error, :closed} ->
        "#Tube<#{Kernel.inspect(pid)} closed>"

      {:error, :elsewhere} ->
        "#Tube<#{Kernel.inspect(pid)} of another node>"
    end
  end

  def inspect(tube, options), do: Inspect.Any.inspect(tube, options)

  defp known(_id, pid) when node(pid) != node(), do: {:error, :elsewhere}

  defp known(id, pid) do
    with {:ok, %{tube: %{pid: ^pid}} = entry} <- Registry.lookup(id),
         {:ok, native} <- Native.info(id) do
      {:ok, entry, native}
    else
      _gone -> {:error, :closed}
    end
  rescue
    # There is no registry: the library is not running.
    ArgumentError -> {:error, :closed}
  end

  defp name(%{role: :nock} = entry), do: name(entry.me, entry.tid, entry.peer, entry.service)
  defp name(%{role: :tip} = entry), do: name(entry.peer, entry.tid, entry.me, entry.service)

  defp name(nock, tid, tip, service),
    do: "#{nock}:#{tid} -> #{tip} #{Kernel.inspect(service)}"

  defp mark(%{mode: :dist}), do: " distribution"
  defp mark(_entry), do: ""

  defp state(%{gone: true}), do: "lost"
  defp state(%{tx: %{finished: true}, rx: %{finished: true}}), do: "closing"
  defp state(%{tx: %{finished: true}}), do: "half-closed"
  defp state(%{rx: %{finished: true}}), do: "half-closed"
  defp state(_open), do: "connected"

  defp rings(%{tx: %{ring: bytes}, rx: %{ring: bytes}}), do: size(bytes)
  # Room was short: the tip stepped down.
  defp rings(%{tx: %{ring: tx}, rx: %{ring: rx}}), do: "#{size(tx)}/#{size(rx)}"

  defp size(bytes), do: "#{div(bytes, 1024)}KiB"
end
