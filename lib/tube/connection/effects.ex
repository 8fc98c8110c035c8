defmodule Tube.Connection.Effects do
  @moduledoc false
  # Performs the operations of `Tube.Handshake` and the actions of `Tube.Connection.Ending`.
  #
  # Both functions fold: they take and return the connection's state and the events that the handshake's
  # machine is to get next, newest first.

  alias Tube.Connection.{BusyPoller, CommandQueue, Ending, Link, Owner, Registry, State}
  alias Tube.Stats.Publisher
  alias Tube.{Handshake, Native, Telemetry, Xenstore}
  alias Tube.Xenstore.Batch

  # Milliseconds, at least.
  @transaction 5_000

  @spec carry_out(Handshake.op(), {State.t(), [Handshake.event()]}) ::
          {State.t(), [Handshake.event()]}
  def carry_out({:allocate, spec}, {state, events}) do
    case Link.allocate(state.domain.platform, spec, state.options) do
      {:ok, tube, refs} -> made(tube, {state, [{:allocated, {:ok, refs}} | events]})
      error -> {state, [{:allocated, error} | events]}
    end
  end

  def carry_out({:map, spec}, {state, events}) do
    case Link.map(state.domain.platform, spec, state.options) do
      {:ok, tube} -> made(tube, {state, [{:mapped, :ok} | events]})
      error -> {state, [{:mapped, error} | events]}
    end
  end

  # A transaction is retried as a whole, so this waits for it, with a limit: that of the handshake, if it is
  # longer.
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

  def carry_out({kind, _reason} = op, acc) when kind in [:failed, :stop], do: ending(op, acc)
  def carry_out(:free, acc), do: ending(:free, acc)

  def carry_out(:start, {state, events}) do
    :ok = Link.start(state.tube, state.owner.pid, state.owner.mode)
    ending(:start, {state, events})
  end

  def carry_out(:connected, {state, events}) do
    state = %{state | span: Telemetry.connected(state.span)}
    Registry.register(State.record(state))
    state = %{state | poller: BusyPoller.set(nil, state.tube, state.options.poll)}
    Publisher.connected(self())

    # At the tip the listener owns it, passively, until somebody accepts.
    if state.role == :tip,
      do: send(state.listener, {:tube_ready, state.tube}),
      else: Native.Driver.active(state.tube.port, Link.encode_active(state.options.active))

    ending({:connected, state.tube}, {state, events})
  end

  def carry_out(op, {state, events}), do: {change(op, state), events}

  @doc "Runs a transaction of the handshake."
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

  # The peer takes nothing more: senders learn it now, not when the link is freed.
  defp change(:closing, state) do
    Link.shutdown(state.tube)
    state
  end

  defp change({:state, number}, state), do: %{state | xenbus_state: number}
  defp change({:peer_state, _number}, state), do: state

  ## How it ends

  @doc """
  Passes `event` to `Tube.Connection.Ending` and performs its actions. Events for the handshake's machine
  join `events`.
  """
  @spec ending(Ending.event(), {State.t(), [Handshake.event()]}) ::
          {State.t(), [Handshake.event()]}
  def ending(event, {state, events}) do
    {ending, actions} = Ending.handle(state.ending, event)
    Enum.reduce(actions, {%{state | ending: ending}, events}, &perform/2)
  end

  defp made(tube, {state, events}), do: ending(:link, {%{state | tube: tube}, events})

  defp perform({:machine, event}, {state, events}), do: {state, [event | events]}
  defp perform(action, {state, events}), do: {do_perform(action, state), events}

  defp do_perform(:finish_sending, state) do
    Link.shutdown(state.tube)
    %{state | commands: CommandQueue.give_up(state.commands)}
  end

  defp do_perform(:shutdown, state) do
    Link.shutdown(state.tube)
    state
  end

  defp do_perform(:start_linger, state) do
    Process.send_after(self(), :linger_timeout, state.options.linger)
    state
  end

  defp do_perform(:suspend_link, state) do
    _ok_or_closed = Native.Driver.suspend(state.tube.port)
    state
  end

  defp do_perform({:cut, reason}, state) do
    Link.cut(state.tube, reason)
    state
  end

  defp do_perform({:free, reason}, state) do
    span = Telemetry.ended(state.span, state.tube, reason)
    Link.free(state.tube)
    %{state | tube: nil, span: span}
  end

  defp do_perform({:failed, reason}, state),
    do: %{state | span: Telemetry.failed(state.span, reason)}

  # The owner may keep this process for long, and the same peer may come again.
  defp do_perform(:tip_done, state) do
    if state.dispatcher, do: send(state.dispatcher, {:tip_done, self()})
    state
  end

  defp do_perform({:reply, from, answer}, state) do
    GenServer.reply(from, answer)
    state
  end

  defp do_perform({:closed, pid}, state) do
    send(pid, {self(), :closed})
    state
  end

  defp do_perform({:exit_owner, reason}, state) do
    Owner.exit(state.owner, reason)
    state
  end

  defp do_perform(:unregister, state) do
    Registry.unregister()
    state
  end

  defp do_perform(:stop, state),
    do: %{state | commands: CommandQueue.give_up(state.commands)}
end
