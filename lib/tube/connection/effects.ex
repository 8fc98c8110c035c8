defmodule Tube.Connection.Effects do
  @moduledoc false
  # Carries out what `Tube.Handshake` asks for, one operation at a time.
  #
  # `carry_out/2` folds over operations: it takes and gives the connection's state and the events that
  # operations were answered by on the spot, newest first.

  alias Tube.Connection.{BusyPoller, Link, Registry, Server, State}
  alias Tube.Stats.Publisher
  alias Tube.{Handshake, Native, Telemetry, Xenstore}
  alias Tube.Xenstore.Batch

  # Milliseconds, at least.
  @transaction 5_000

  @spec carry_out(Handshake.op(), {State.t(), [Handshake.event()]}) ::
          {State.t(), [Handshake.event()]}
  def carry_out({:allocate, spec}, {state, events}) do
    case Link.allocate(state.domain.platform, spec, state.options) do
      {:ok, tube, refs} -> {%{state | tube: tube}, [{:allocated, {:ok, refs}} | events]}
      error -> {state, [{:allocated, error} | events]}
    end
  end

  def carry_out({:map, spec}, {state, events}) do
    case Link.map(state.domain.platform, spec, state.options) do
      {:ok, tube} -> {%{state | tube: tube}, [{:mapped, :ok} | events]}
      error -> {state, [{:mapped, error} | events]}
    end
  end

  # A transaction must be retried as a whole, so it is waited for; it has a limit of its own. Who is
  # patient with the peer is so with the store.
  def carry_out({:store, ref, {:transaction, requests}}, {state, events}) do
    limit = [timeout: max(state.options.timeout, @transaction)]
    {state, [{:store, ref, transaction(state, {:transaction, requests}, limit)} | events]}
  end

  def carry_out({:store, ref, request}, {state, events}) do
    Xenstore.request(state.domain.store, ref, request)
    {state, events}
  end

  def carry_out({:watch, token, path, interest}, {state, events}) do
    case Xenstore.watch(state.domain.store, path, interest, token) do
      :ok -> {state, events}
      {:error, reason} -> {state, [{:watch_failed, token, reason} | events]}
    end
  end

  def carry_out(op, {state, events}), do: {change(op, state), events}

  @doc "Does the requests of a transaction of the handshake."
  @spec transaction(State.t(), Batch.request(), keyword) :: Batch.result()
  def transaction(state, {:transaction, steps}, opts),
    do: Xenstore.batch(state.domain.store, steps, opts)

  defp change({:unwatch, token}, state) do
    Xenstore.unwatch(state.domain.store, token)
    state
  end

  defp change({:timer, name, ms}, state) do
    state = change({:cancel, name}, state)
    ref = make_ref()
    timer = Process.send_after(self(), {:timer, name, ref}, ms)
    %{state | timers: Map.put(state.timers, name, {timer, ref})}
  end

  defp change({:cancel, name}, state) do
    {timer, timers} = Map.pop(state.timers, name)
    if timer, do: Process.cancel_timer(elem(timer, 0))
    %{state | timers: timers}
  end

  defp change(:start, state) do
    :ok = Link.start(state.tube, state.owner.pid, state.owner.mode)
    %{state | listening: true}
  end

  defp change(:connected, state) do
    state = %{state | span: Telemetry.connected(state.span)}
    Registry.register(State.record(state))
    state = %{state | poller: BusyPoller.set(nil, state.tube, state.options.poll)}
    Publisher.connected(self())

    # At the tip the listener owns it, passively, until somebody accepts.
    if state.role == :tip,
      do: send(state.listener, {:tube_ready, state.tube}),
      else: Native.active(state.tube.port, Link.encode_active(state.options.active))

    %{state | connected: true}
  end

  # The peer takes nothing more: who sends is told so now, not when the rings go.
  defp change(:closing, state) do
    Link.shut(state.tube)
    state
  end

  defp change({:state, number}, state), do: %{state | state: number}
  defp change({:peer_state, _number}, state), do: state

  defp change({:failed, reason}, %{failed: nil} = state),
    do: %{state | failed: reason, span: Telemetry.failed(state.span, reason)}

  defp change({:failed, _later}, state), do: state

  defp change(:free, state), do: Server.let_go(state)

  defp change({:stop, reason}, state) do
    # The owner may keep this process for long, and the same peer may come again.
    tip_done(state)
    %{state | ended: reason}
  end

  @doc """
  Tells the dispatcher that this tip needs the store no longer, so that another tube may be opened
  under its number.
  """
  @spec tip_done(State.t()) :: :ok
  def tip_done(%{dispatcher: nil}), do: :ok

  def tip_done(%{dispatcher: dispatcher}) do
    send(dispatcher, {:tip_done, self()})
    :ok
  end
end
