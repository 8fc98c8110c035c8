defmodule Tube.Handshake.Verdict do
  @moduledoc false
  # What must hold in the states of the model, and when two of them are the same.

  alias Tube.Paths
  alias Tube.Handshake.TestStore

  @nock 7
  @tip 5
  @stranger 9
  @tid 0
  @service "default"

  @doc "What is wrong with a state that may last: nil, or a text."
  def wrong(w) do
    live = for {name, p} <- w.parties, do: {name, p}
    open = for {name, p} <- live, p.m.phase == :open, do: name
    nock = w.parties[:nock]

    cond do
      waiting = Enum.find(live, fn {_, p} -> p.m.phase not in [:open, :done] end) ->
        "waits for ever: #{inspect(elem(waiting, 0))}"

      busy = Enum.find(live, fn {_, p} -> p.timers != [] end) ->
        "a timer runs: #{inspect(elem(busy, 0))}"

      open != [] ->
        wrong_open(w, open)

      w.connects and is_binary(w.door) and w.crashed == [] ->
        "nobody is connected"

      left = Enum.find(live, fn {_, p} -> p.rings != nil end) ->
        "rings are left: #{inspect(elem(left, 0))}"

      left = Enum.find(live, fn {_, p} -> p.watches != %{} end) ->
        "watches are left: #{inspect(elem(left, 0))}"

      mute = Enum.find(live, fn {_, p} -> not reason?(p.told) end) ->
        "no reason was given: #{inspect(mute)}"

      nock && not told?(nock.told) ->
        "the asker was not told"

      true ->
        wrong_left(w)
    end
  end

  defp reason?(told),
    do: Enum.any?(told, &match?({:stop, reason} when is_atom(reason) and reason != nil, &1))

  defp told?(told), do: :connected in told or match?([{:failed, _} | _], told)

  # Both are connected, to each other, and the store shows them and nothing else.
  defp wrong_open(w, open) do
    nock = w.parties[:nock]

    with [:nock, {:tip, _} = tip] <- Enum.sort(open),
         {:mapped, ^tip} <- nock.rings,
         {:shared, nonce, _} <- w.parties[tip].rings,
         true <- nock.m.nonce == nonce and w.parties[tip].m.nonce == nonce do
      expected = Enum.sort(shown(nonce, w.parties[tip].m.refs))
      actual = for {path, {value, _perms}} <- w.store, tube?(path), value != "", do: {path, value}

      if actual == expected,
        do: nil,
        else: "the store shows #{inspect(actual -- expected)}, not #{inspect(expected -- actual)}"
    else
      _other -> "connected, but not to each other: #{inspect(open)}"
    end
  end

  defp shown(nonce, refs) do
    knock = Paths.nock_node(@nock, @tip, @tid)
    entry = Paths.tip_node(@tip, @nock, @tid)

    for(
      {key, value} <- [tip: entry, service: @service, version: "1", nonce: nonce, state: "4"],
      do: {"#{knock}/#{key}", value}
    ) ++
      for {key, value} <- [
            nock: knock,
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
          do: {"#{entry}/#{key}", to_string(value)}
  end

  # A VM that died while its domain lives may leave its own half, for its next start to replace.
  # The nock takes the tip's half with it, if that was there before the nock went.
  defp wrong_left(w) do
    mine =
      for {role, :vm} <- w.crashed do
        if role == :nock,
          do: &String.starts_with?(&1, Paths.nock_root(@nock)),
          else: &(&1 in [Paths.tip_root(@tip), Paths.inbox(@tip, @nock)] or w.store_lost)
      end

    # The empty parent is the door's as much as the tubes': it goes with the last of them.
    mine = [(&(&1 == Paths.tip_root(@tip))) | mine]

    case for({path, _} <- w.store, tube?(path), not Enum.any?(mine, & &1.(path)), do: path) do
      [] -> nil
      left -> "nodes are left: #{inspect(left)}"
    end
  end

  defp tube?(path), do: path =~ ~r"/data/(nock|tip)(/|$)"

  @doc "What is wrong with a store at any time: nobody but the two may write or read their nodes."
  def exposed(store) do
    Enum.find_value(store, fn {path, {_value, perms}} ->
      cond do
        TestStore.may?(perms, @stranger, :w) and not own?(path) ->
          "domain #{@stranger} may write #{path}"

        TestStore.may?(perms, @stranger, :r) and tube?(path) ->
          "domain #{@stranger} may read #{path}"

        true ->
          nil
      end
    end)
  end

  @doc "Is the path the stranger's own?"
  def own?(path), do: String.starts_with?(path, "/local/domain/#{@stranger}")

  @doc "What identifies a state: what can make no difference any more is left out."
  def key(w) do
    parties = for {name, p} <- w.parties, do: {name, summary(p)}

    :erlang.md5(
      :erlang.term_to_binary(
        {number(w.store), parties, w.budget, w.door, w.rung, w.let_in, w.crashed}
      )
    )
  end

  # Stores are large, and few beside the states: each gets a number.
  defp number(store) do
    with nil <- Process.get({:number, store}) do
      number = Process.get(:numbers, 0)
      Process.put(:numbers, number + 1)
      Process.put({:number, store}, number)
      number
    end
  end

  defp summary(%{m: %{phase: :done}} = p),
    do: {:done, p.rings, p.timers, p.watches, p.queue, p.down, reason?(p.told), told?(p.told)}

  defp summary(%{m: %{phase: :cleaning} = m} = p) do
    {:cleaning, m.pending, m.store, m.tries, m.nonce, m.instance, p.rings, p.timers, p.watches,
     p.queue, p.answers, p.down, told?(p.told)}
  end

  defp summary(p) do
    m = %{p.m | limits: nil, role: nil, service: nil}
    {Map.values(%{p | m: nil, watches: Map.keys(p.watches)}), Map.values(m)}
  end
end
