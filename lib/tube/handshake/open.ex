defmodule Tube.Handshake.Open do
  @moduledoc false
  # An open tube, and how it is closed. Both roles do the same, with one exception.
  #
  # The flags in the shared page decide; the states in xenstore mirror them. The closing side writes
  # 5; the peer drains its ring and writes 6; the first side writes 6, and both are done. If both
  # close at once, both are at 5, nobody takes any more data, and both go to 6.
  #
  # The exception: a grant cannot be ended while it is mapped. So the nock frees the rings *before*
  # it writes 6, and the tip frees them *after* it has read that 6.

  import Tube.Handshake.Step

  alias Tube.Handshake.Machine

  @doc "The tube is open: data flows from here on."
  def enter(m) do
    %{m | phase: :open, own_state: 4, peer_state: nil}
    |> cancel_timer(:limit)
    |> unwatch(:services)
    |> unwatch(:tip_node)
    |> emit(:start)
    |> emit(:connected)
  end

  ## Events

  def event(%{phase: :open} = m, event) when event in [:close, :owner_down, :suspend],
    do: %{m | owner_closed: true, phase: :closing}

  def event(m, event) when event in [:close, :owner_down, :suspend],
    do: %{m | owner_closed: true}

  def event(m, :protocol), do: break(m, :protocol)
  def event(m, :domain_gone), do: break(m, :peer_domain_gone)
  def event(%{phase: :open, fin: true} = m, :gone), do: peer_closes(m, :gone)
  def event(%{phase: :open} = m, :gone), do: lose_peer(m, :peer_down)
  def event(m, :gone), do: peer_state(m, :gone)
  def event(m, _other), do: m

  @doc "The peer writes no more. If its nodes are gone too, it has closed without waiting for us."
  def peer_finished(%{phase: :open, peer_state: :gone} = m),
    do: if(:vanished in m.timers, do: m |> cancel_timer(:vanished) |> peer_closes(:gone), else: m)

  def peer_finished(m), do: m

  @doc "Our knowledge of the peer's nodes is void; the page still tells the truth."
  def store_lost(%{phase: :open} = m),
    do: %{(m |> cancel_timer(:grace) |> cancel_timer(:vanished)) | peer_state: nil}

  def store_lost(m), do: m

  @doc "Publishes our half again, then reads the peer's."
  def store_back(m) do
    m |> m.role.watch_peer() |> start_timer(:grace) |> request(:publish, [m.role.publish(m)])
  end

  def replied(m, :peer, replies), do: follow(m, peer(m, replies))

  # The peer's half now belongs to another attempt.
  def replied(m, _tag, [{:error, :guard}]), do: follow(m, :other)
  def replied(m, {:own_state, state}, [_result]), do: own_state(m, state)
  def replied(m, :publish, [_result]), do: read_peer(m)
  def replied(m, _tag, _results), do: m

  # The peer is open, as we are.
  defp follow(%{phase: :open} = m, {:state, 4}),
    do: m |> cancel_timer(:vanished) |> cancel_timer(:grace) |> peer_state(4)

  defp follow(%{phase: :open} = m, {:state, state}) when state in 5..6, do: peer_closes(m, state)
  defp follow(%{phase: :open} = m, :other), do: lose_peer(m, :peer_down)
  defp follow(%{phase: :open, fin: true} = m, :absent), do: peer_closes(m, :gone)

  defp follow(%{phase: :open} = m, :absent) do
    # After the store was away the peer may need a moment to publish again. Otherwise the end of its
    # domain has removed its nodes, unless a notification says that only its process ended.
    m = %{m | peer_state: :gone}
    if :grace in m.timers, do: m, else: start_timer(m, :vanished)
  end

  # An open tube does not need the store, so the store's trouble does not end it.
  defp follow(%{phase: :open} = m, {:error, _reason}),
    do: if(:grace in m.timers, do: m, else: start_timer(%{m | peer_state: nil}, :grace))

  defp follow(%{phase: :open} = m, _impossible), do: break(m, :protocol)

  # A close is final: nothing follows :gone, and 6 is not followed by 5 or 4.
  defp follow(m, {:state, state}) when state in 4..6,
    do: if(m.peer_state == nil or state > m.peer_state, do: peer_state(m, state), else: m)

  defp follow(m, {:error, _reason}), do: m
  defp follow(m, _gone), do: peer_state(m, :gone)

  def timeout(%{phase: :open} = m, :vanished), do: break(m, :peer_domain_gone)

  def timeout(%{phase: :open, peer_state: :gone} = m, :grace), do: break(m, :peer_domain_gone)
  def timeout(%{phase: :open} = m, :grace), do: mark_dirty(m, :peer)
  def timeout(%{own_state: 6} = m, :close), do: finish(m)
  def timeout(m, :close), do: finish(%{m | ending: m.ending || :timeout})

  def timeout(%{phase: :closing} = m, :drain),
    do: %{m | drained: true, ending: m.ending || :timeout}

  def timeout(m, _timer), do: m

  ## Closing

  defp peer_closes(m, state), do: peer_state(emit(%{m | phase: :closing}, :closing), state)

  # The peer is lost, but the data that it had sent is in our ring.
  defp lose_peer(m, reason),
    do: peer_state(emit(%{m | phase: :closing, ending: reason}, {:failed, reason}), :gone)

  # The ring is worthless, or the memory of a dead domain must be released at once.
  defp break(%{ending: nil} = m, reason),
    do: finish(emit(%{m | ending: reason}, {:failed, reason}))

  defp break(m, _reason), do: finish(m)

  @doc "The next step of a close, if one is due. Called when no request is outstanding."
  @spec advance(Machine.t()) :: Machine.t()
  def advance(m) do
    # Our owner has closed or has taken everything, so our end of the rings is idle.
    quiet? = m.owner_closed or m.drained

    cond do
      m.peer_state == :gone and quiet? ->
        finish(m)

      m.peer_state == 6 and m.own_state == 6 ->
        finish(m)

      m.peer_state in [5, 6] and m.own_state < 6 and quiet? ->
        m |> cancel_timer(:drain) |> limit(:close) |> free_first() |> write_state(6)

      m.owner_closed and m.own_state == 4 ->
        m |> limit(:close) |> write_state(5)

      m.peer_state in [5, 6, :gone] and not quiet? ->
        limit(m, :drain)

      true ->
        m
    end
  end

  defp limit(m, timer), do: if(timer in m.timers, do: m, else: start_timer(m, timer))

  defp free_first(m), do: if(m.role.frees_first?(), do: free(m), else: m)

  defp write_state(%{store: :down} = m, state), do: %{m | own_state: state}

  defp write_state(m, state),
    do: request(m, {:own_state, state}, [m.role.write_state(m, state)])
end
