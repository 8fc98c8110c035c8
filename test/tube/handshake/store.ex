defmodule Tube.Handshake.TestStore do
  @moduledoc false
  # A xenstore in a map: path => {value, perms}. Permissions and new nodes are those of C xenstored
  # (`:c`) or oxenstored (`:o`). Each change returns the list of paths that fire watches.

  @type t :: %{String.t() => {binary, list}}

  @doc "The nodes that the toolstack creates for these domains."
  def new(domids) do
    for domid <- domids, into: %{"/" => {"", [n: 0]}} do
      {"/local/domain/#{domid}/data", {"", [n: domid]}}
    end
  end

  @doc "One request of `domid`. Returns the result, the store after it, and the fired paths."
  def request(store, flavour, domid, {:transaction, requests}) do
    # In the process dictionary, because the body of a transaction is the library's own.
    Process.put(:transaction, {store, []})

    call = fn request ->
      {store, fired} = Process.get(:transaction)
      {result, store, more} = request(store, flavour, domid, request)
      Process.put(:transaction, {store, fired ++ more})
      result
    end

    case Tube.Xenstore.Batch.run(requests, &Enum.map(&1, call)) do
      {:ok, results} ->
        {changed, fired} = Process.get(:transaction)
        {{:ok, results}, changed, fired}

      {:error, reason} ->
        {{:error, reason}, store, []}
    end
  end

  def request(store, _flavour, domid, {:read, path}) do
    {with({:ok, {value, _perms}} <- get(store, domid, path, :r), do: {:ok, value}), store, []}
  end

  def request(store, _flavour, domid, {:directory, path}) do
    {with({:ok, _node} <- get(store, domid, path, :r), do: {:ok, children(store, path)}), store,
     []}
  end

  def request(store, _flavour, domid, {:get_perms, path}) do
    {with({:ok, {_value, perms}} <- get(store, domid, path, :r), do: {:ok, perms}), store, []}
  end

  def request(store, _flavour, domid, {:set_perms, path, [{_, owner} | _] = perms}) do
    case get(store, domid, path, :w) do
      {:ok, {_value, [{_, ^domid} | _]}} when owner != domid ->
        {{:error, :eperm}, store, []}

      {:ok, {value, [{_, ^domid} | _] = old}} ->
        store = Map.put(store, path, {value, perms})
        {:ok, store, [{path, old ++ perms}]}

      {:ok, _not_owner} ->
        {{:error, :eacces}, store, []}

      error ->
        {error, store, []}
    end
  end

  def request(store, flavour, domid, {:write, path, value}) do
    case get(store, domid, path, :w) do
      {:ok, {_old, perms}} -> {:ok, Map.put(store, path, {value, perms}), [{path, perms}]}
      {:error, :enoent} -> create(store, flavour, domid, path, value)
      error -> {error, store, []}
    end
  end

  def request(store, flavour, domid, {:mkdir, path}) do
    case get(store, domid, path, :w) do
      {:ok, _node} -> {:ok, store, []}
      {:error, :enoent} -> create(store, flavour, domid, path, "")
      error -> {error, store, []}
    end
  end

  def request(store, _flavour, domid, {:rm, path}) do
    case get(store, domid, path, :w) do
      {:ok, {_value, perms}} ->
        {:ok, drop(store, path), [{path, perms}]}

      {:error, :enoent} ->
        {if(Map.has_key?(store, up(path)), do: :ok, else: {:error, :enoent}), store, []}

      error ->
        {error, store, []}
    end
  end

  @doc "Ends a domain: removes its nodes, its permissions in other lists, and its own tree."
  def destroy(store, domid) do
    gone =
      for {path, {_value, [{_, owner} | _] = perms}} <- store,
          owner == domid or String.starts_with?(path <> "/", "/local/domain/#{domid}/"),
          do: {path, perms}

    store = Enum.reduce(gone, store, fn {path, _}, store -> drop(store, path) end)

    store =
      Map.new(store, fn {path, {value, [owner | rest]}} ->
        {path, {value, [owner | Enum.reject(rest, &(elem(&1, 1) == domid))]}}
      end)

    {store, gone}
  end

  @doc "May a domain read (`:r`) or write (`:w`) a node?"
  def may?(_perms, 0, _want), do: true
  def may?([{_, domid} | _], domid, _want), do: true

  def may?([{default, _} | rest], domid, want) do
    letter = Enum.find_value(rest, default, fn {letter, id} -> if id == domid, do: letter end)
    letter == want or letter == :b
  end

  @doc "Does a change of `path` reach a watch of `domid` on `watched` with this interest?"
  def fires?(store, domid, {path, perms}, watched, interest) do
    reported = if above?(path, watched), do: watched, else: path

    (reported == watched or above?(watched, reported)) and
      (reported == interest or above?(reported, interest) or above?(interest, reported)) and
      (may?(perms, domid, :r) or may?(nearest(store, up(path)), domid, :r))
  end

  defp above?(above, path), do: String.starts_with?(path, above <> "/")

  defp get(store, domid, path, want) do
    case store do
      %{^path => {_value, perms} = node} ->
        if may?(perms, domid, want), do: {:ok, node}, else: {:error, :eacces}

      _ ->
        {:error, if(may?(nearest(store, up(path)), domid, want), do: :enoent, else: :eacces)}
    end
  end

  defp nearest(store, path) do
    case store do
      %{^path => {_value, perms}} -> perms
      _ -> nearest(store, up(path))
    end
  end

  defp create(store, flavour, domid, path, value) do
    {store, perms} = make(store, flavour, domid, path, value)
    {:ok, store, [{path, perms}]}
  end

  defp make(store, flavour, domid, path, value) do
    up = up(path)

    {store, [{letter, _owner} | rest] = inherited} =
      case store do
        %{^up => {_value, perms}} -> {store, perms}
        _ -> make(store, flavour, domid, up, "")
      end

    perms = if flavour == :c and domid != 0, do: [{letter, domid} | rest], else: inherited
    {Map.put(store, path, {value, perms}), perms}
  end

  defp children(store, path) do
    prefix = path <> "/"
    size = byte_size(prefix)

    for {child, _} <- store,
        String.starts_with?(child, prefix),
        name = binary_part(child, size, byte_size(child) - size),
        not String.contains?(name, "/"),
        do: name
  end

  defp drop(store, path) do
    Map.reject(store, fn {at, _} -> at == path or above?(path, at) end)
  end

  defp up(path) do
    case path |> :binary.matches("/") |> List.last() do
      # Above a domain's `data` only the root exists.
      {at, 1} when at > 15 -> binary_part(path, 0, at)
      _ -> "/"
    end
  end
end
