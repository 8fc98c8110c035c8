defmodule Tube.Handshake.Open do
  @moduledoc false
  # An open tube, and how it is closed: the same for both roles, save one thing.
  #
  # The flags in the shared page decide; the states in xenstore mirror them. Who closes writes 5;
  # the peer takes what is left in its ring and writes 6; the first writes 6, and both are done.
  # If both close at once both are at 5, nobody takes anything any more, and both go to 6.
  #
  # The one thing: a grant cannot be ended while it is mapped. So the nock lets go of the
  # rings *before* it writes 6, and the tip lets go *after* it has seen that.

  alias Tube.Handshake
  import Tube.Handshake.Machine, except: [handle: 2, new: 3, flush: 1]

  @doc "From here on data flows."
  def enter(m) do
    %{m | phase: :open, own: 4, seen: nil}
    |> cancel(:limit)
    |> unwatch(:door)
    |> unwatch(:entry)
    |> emit(:listen)
    |> emit(:connected)
  end

  ## Events

  def event(%{phase: :open} = m, event) when event in [:close, :owner_down, :suspend],
    do: %{m | asked: true, phase: :closing}

  def event(m, event) when event in [:close, :owner_down, :suspend], do: %{m | asked: true}
  def event(m, :protocol), do: break(m, :protocol)
  def event(m, :domain_gone), do: break(m, :peer_domain_gone)
  def event(%{phase: :open, fin: true} = m, :gone), do: closing(m, :gone)
  def event(%{phase: :open} = m, :gone), do: lose(m, :peer_down)
  def event(m, :gone), do: saw(m, :gone)
  def event(m, _other), do: m

  @doc "The peer will write no more: if its nodes are gone too, it has closed and did not wait for us."
  def finished(%{phase: :open, seen: :gone} = m),
    do: if(:vanished in m.timers, do: m |> cancel(:vanished) |> closing(:gone), else: m)

  def finished(m), do: m

  @doc "What we know of the peer's nodes is worth nothing now; what the page says still is."
  def lost(%{phase: :open} = m), do: %{(m |> cancel(:grace) |> cancel(:vanished)) | seen: nil}
  def lost(m), do: m

  @doc "The store is back: say again what we said before, then see what the peer says."
  def back(m) do
    m |> m.role.watch_peer() |> start(:grace) |> ask(:publish, [m.role.publish(m)])
  end

  def answered(m, :peer, answers), do: follow(m, peer(m, answers))

  # The peer's half belongs to another attempt by now.
  def answered(m, _tag, [{:error, :guard}]), do: follow(m, :other)
  def answered(m, {:own, state}, [_result]), do: wrote(m, state)
  def answered(m, :publish, [_result]), do: ask_peer(m)
  def answered(m, _tag, _results), do: m

  # The peer is where we are.
  defp follow(%{phase: :open} = m, {:state, 4}),
    do: m |> cancel(:vanished) |> cancel(:grace) |> saw(4)

  defp follow(%{phase: :open} = m, {:state, state}) when state in 5..6, do: closing(m, state)
  defp follow(%{phase: :open} = m, :other), do: lose(m, :peer_down)
  defp follow(%{phase: :open, fin: true} = m, :absent), do: closing(m, :gone)

  defp follow(%{phase: :open} = m, :absent) do
    # After the store was away the peer may need a moment to publish again. Otherwise its nodes
    # were taken away: by the end of its domain, unless the doorbell tells otherwise.
    m = %{m | seen: :gone}
    if :grace in m.timers, do: m, else: start(m, :vanished)
  end

  # The store is in trouble, which is no reason to end a tube that does not need it.
  defp follow(%{phase: :open} = m, {:error, _reason}),
    do: if(:grace in m.timers, do: m, else: start(%{m | seen: nil}, :grace))

  defp follow(%{phase: :open} = m, _impossible), do: break(m, :protocol)

  # A close is never taken back: :gone is the last word, and 6 is not followed by 5 or 4.
  defp follow(m, {:state, state}) when state in 4..6,
    do: if(m.seen == nil or state > m.seen, do: saw(m, state), else: m)

  defp follow(m, {:error, _reason}), do: m
  defp follow(m, _gone), do: saw(m, :gone)

  def timeout(%{phase: :open} = m, :vanished), do: break(m, :peer_domain_gone)
  def timeout(%{phase: :open, seen: :gone} = m, :grace), do: break(m, :peer_domain_gone)
  def timeout(%{phase: :open} = m, :grace), do: soil(m, :peer)
  def timeout(%{own: 6} = m, :close), do: finish(m)
  def timeout(m, :close), do: finish(%{m | ending: m.ending || :timeout})

  def timeout(%{phase: :closing} = m, :drain),
    do: %{m | drained: true, ending: m.ending || :timeout}

  def timeout(m, _timer), do: m

  ## Closing

  # The peer closes.
  defp closing(m, seen), do: saw(emit(%{m | phase: :closing}, :closing), seen)

  # The peer is lost, but what it had sent before is in our ring.
  defp lose(m, reason),
    do: saw(emit(%{m | phase: :closing, ending: reason}, {:failed, reason}), :gone)

  # Nothing in the ring is worth having, or somebody's memory must be let go of at once.
  defp break(%{ending: nil} = m, reason),
    do: finish(emit(%{m | ending: reason}, {:failed, reason}))

  defp break(m, _reason), do: finish(m)

  @doc "The next step of a close, if one is due. Called when no question is open."
  @spec advance(Handshake.Machine.t()) :: Handshake.Machine.t()
  def advance(m) do
    # Our side of the rings is quiet when the owner takes no more, or has taken all.
    quiet? = m.asked or m.drained

    cond do
      m.seen == :gone and quiet? ->
        finish(m)

      m.seen == 6 and m.own == 6 ->
        finish(m)

      m.seen in [5, 6] and m.own < 6 and quiet? ->
        m |> cancel(:drain) |> limit(:close) |> let_go() |> own(6)

      m.asked and m.own == 4 ->
        m |> limit(:close) |> own(5)

      m.seen in [5, 6, :gone] and not quiet? ->
        limit(m, :drain)

      true ->
        m
    end
  end

  defp limit(m, timer), do: if(timer in m.timers, do: m, else: start(m, timer))

  defp let_go(%{role: Handshake.Nock} = m), do: free(m)
  defp let_go(m), do: m

  defp own(%{store: :down} = m, state), do: %{m | own: state}
  defp own(m, state), do: ask(m, {:own, state}, [m.role.write_state(m, state)])
end
