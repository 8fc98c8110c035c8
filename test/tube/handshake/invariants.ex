defmodule Tube.Handshake.Invariants do
  @moduledoc false
  # What must hold in the states of the model, and which of them are equivalent.

  alias Tube.Paths
  alias Tube.Handshake.TestStore

  @nock 7
  @tip 5
  @intruder 9
  @tid 0
  @service "default"

  @doc "What is wrong with a stable state: nil, or a text."
  def violation(w) do
    live = for {name, p} <- w.endpoints, do: {name, p}
    open = for {name, p} <- live, p.m.phase == :open, do: name
    nock = w.endpoints[:nock]

    cond do
      waiting = Enum.find(live, fn {_, p} -> p.m.phase not in [:open, :done] end) ->
        "waits for ever: #{inspect(elem(waiting, 0))}"

      busy = Enum.find(live, fn {_, p} -> p.timers != [] end) ->
        "a timer runs: #{inspect(elem(busy, 0))}"

      open != [] ->
        open_violation(w, open)

      w.connects and is_binary(w.service) and w.crashed == [] ->
        "nobody is connected"

      left = Enum.find(live, fn {_, p} -> p.rings != nil end) ->
        "rings are left: #{inspect(elem(left, 0))}"

      left = Enum.find(live, fn {_, p} -> p.watches != %{} end) ->
        "watches are left: #{inspect(elem(left, 0))}"

      mute = Enum.find(live, fn {_, p} -> not reason?(p.reported) end) ->
        "no reason was given: #{inspect(mute)}"

      nock && not opener_informed?(nock.reported) ->
        "the opener was not informed"

      true ->
        remains(w)
    end
  end

  defp reason?(reported),
    do: Enum.any?(reported, &match?({:stop, reason} when is_atom(reason) and reason != nil, &1))

  defp opener_informed?(reported),
    do: :connected in reported or match?([{:failed, _} | _], reported)

  # Both are connected to each other, and the store shows them and nothing else.
  defp open_violation(w, open) do
    nock = w.endpoints[:nock]

    with [:nock, {:tip, _} = tip] <- Enum.sort(open),
         {:mapped, ^tip} <- nock.rings,
         {:shared, nonce, _} <- w.endpoints[tip].rings,
         true <- nock.m.nonce == nonce and w.endpoints[tip].m.nonce == nonce do
      expected = Enum.sort(shown(nonce, w.endpoints[tip].m.refs))
      actual = for {path, {value, _perms}} <- w.store, tube?(path), value != "", do: {path, value}

      if actual == expected,
        do: nil,
        else: "the store shows #{inspect(actual -- expected)}, not #{inspect(expected -- actual)}"
    else
      _other -> "connected, but not to each other: #{inspect(open)}"
    end
  end

  defp shown(nonce, refs) do
    nock_node = Paths.nock_node(@nock, @tip, @tid)
    tip_node = Paths.tip_node(@tip, @nock, @tid)

    for(
      {key, value} <- [tip: tip_node, service: @service, version: "1", nonce: nonce, state: "4"],
      do: {"#{nock_node}/#{key}", value}
    ) ++
      for {key, value} <- [
            nock: nock_node,
            nonce: nonce,
            version: "1",
            state: "4",
            "tx-ring-ref": refs.tx_ring_ref,
            "rx-ring-ref": refs.rx_ring_ref,
            "event-channel": refs.event_channel,
            "tx-ring-bytes": refs.tx_ring_bytes,
            "rx-ring-bytes": refs.rx_ring_bytes,
            opened: refs.opened
          ],
          do: {"#{tip_node}/#{key}", to_string(value)}
  end

  # A VM that died while its domain lives may leave its own half, which its next start replaces.
  # The survivor removes the rest.
  defp remains(w) do
    mine =
      for {role, :vm} <- w.crashed do
        if role == :nock,
          do: &String.starts_with?(&1, Paths.nock_root(@nock)),
          else: &(&1 in [Paths.tip_root(@tip), Paths.inbox(@tip, @nock)] or w.store_lost)
      end

    # The service directory and the tubes share the empty parent: it goes with the last of them.
    mine = [(&(&1 == Paths.tip_root(@tip))) | mine]

    case for({path, _} <- w.store, tube?(path), not Enum.any?(mine, & &1.(path)), do: path) do
      [] -> nil
      left -> "nodes are left: #{inspect(left)}"
    end
  end

  defp tube?(path), do: path =~ ~r"/data/(nock|tip)(/|$)"

  @doc "What is wrong with a store at any time: only the two may write or read their nodes."
  def exposed(store) do
    Enum.find_value(store, fn {path, {_value, perms}} ->
      cond do
        TestStore.may?(perms, @intruder, :w) and not own?(path) ->
          "domain #{@intruder} may write #{path}"

        TestStore.may?(perms, @intruder, :r) and tube?(path) ->
          "domain #{@intruder} may read #{path}"

        true ->
          nil
      end
    end)
  end

  @doc "Does the path belong to the intruder?"
  def own?(path), do: String.starts_with?(path, "/local/domain/#{@intruder}")

  @doc "Identifies a state, without what can make no difference any more."
  def key(w) do
    endpoints = for {name, p} <- w.endpoints, do: {name, summary(p)}

    :erlang.md5(
      :erlang.term_to_binary(
        {number(w.store), endpoints, w.budget, w.service, w.woken, w.started, w.crashed}
      )
    )
  end

  # There are few stores compared with states, but they are large: each gets a number.
  defp number(store) do
    with nil <- Process.get({:number, store}) do
      number = Process.get(:numbers, 0)
      Process.put(:numbers, number + 1)
      Process.put({:number, store}, number)
      number
    end
  end

  defp summary(%{m: %{phase: :done}} = p),
    do:
      {:done, p.rings, p.timers, p.watches, p.queue, p.down, reason?(p.reported),
       opener_informed?(p.reported)}

  defp summary(%{m: %{phase: :cleaning} = m} = p) do
    {:cleaning, m.pending, m.store, m.tries, m.nonce, m.instance, p.rings, p.timers, p.watches,
     p.queue, p.replies, p.down, opener_informed?(p.reported)}
  end

  defp summary(p) do
    m = %{p.m | limits: nil, role: nil, service: nil}
    {Map.values(%{p | m: nil, watches: Map.keys(p.watches)}), Map.values(m)}
  end
end
