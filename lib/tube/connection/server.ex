defmodule Tube.Connection.Server do
  @moduledoc false
  # The process of a tube: it carries out its handshake, holds its port, and ends it.
  #
  # What to do is decided elsewhere: `Tube.Handshake` says which store request, watch, timer or
  # native call comes next, and this process does it and reports what came of it. Messages do
  # not pass through here: senders and the owner call `Tube.Native`, and the driver's port
  # delivers to the owner. This process is what the owner sees as the port.
  #
  # The tube outlives its handshake's machine by what the owner has not taken yet: see `settle/1`.

  use GenServer, restart: :temporary

  alias Tube.Connection.{BusyPoller, CommandQueue, Effects, Link, Owner, State}
  alias Tube.{Domain, Label, Native, Telemetry, Xenstore}
  alias Tube.Listener.Dispatcher

  @doc "Starts the process of one tube, on behalf of `Tube.Connection`."
  @spec start_link(State.args()) :: GenServer.on_start()
  def start_link(args), do: GenServer.start_link(__MODULE__, args)

  @impl true
  def init(args) do
    Process.flag(:trap_exit, true)
    Domain.subscribe()

    case State.new(args) do
      {:ok, state, ops} ->
        metadata = State.metadata(state)
        Label.set(Label.tube(metadata))
        span = Telemetry.handshake(metadata)
        {:ok, %{state | span: span}, {:continue, ops}}

      {:error, reason} ->
        {:stop, {:shutdown, reason}}
    end
  end

  @impl true
  def handle_continue(ops, state), do: settle(run(state, ops))

  # Asked once, by who opens. The answer is held back until there is one.
  @impl true
  def handle_call(:await, from, state), do: settle(%{state | opener: from, unasked: false})

  def handle_call(:info, _from, state), do: {:reply, State.info(state), state}

  def handle_call({:suspend, ms}, from, state) do
    Process.send_after(self(), :suspend_over, ms)
    settle(suspend(%{state | suspenders: [from | state.suspenders]}))
  end

  def handle_call(:options, _from, %{tube: nil} = state), do: {:reply, {:error, :closed}, state}
  def handle_call(:options, _from, state), do: {:reply, {:ok, state.options}, state}

  # For `:tube`, and from anyone, as a port takes them.
  def handle_call({request, _}, _from, %{tube: tube, closing: closing} = state)
      when request in [:room, :command] and (tube == nil or closing != nil),
      do: {:reply, {:error, :closed}, state}

  def handle_call({:room, :reply}, from, state), do: ask(state, {:reply, from})

  def handle_call({:room, {:send, _pid} = asker}, from, state) do
    GenServer.reply(from, :ok)
    ask(state, asker)
  end

  # Answered when there is room again, as a busy port suspends who commands it.
  def handle_call({:command, message}, from, state) do
    case CommandQueue.push(state.commands, state.tube.id, message) do
      {:ok, commands} -> ask(%{state | commands: commands}, {:reply, from})
      {:refused, reason, commands} -> {:reply, {:error, reason}, %{state | commands: commands}}
      {:error, _reason} = error -> {:reply, error, state}
    end
  end

  def handle_call(request, {caller, _tag} = from, state) do
    if Owner.is?(state.owner, caller),
      do: owner_call(request, from, state),
      else: {:reply, {:error, :not_owner}, state}
  end

  defp ask(state, asker),
    do: {:noreply, %{state | commands: CommandQueue.ask(state.commands, state.tube.id, asker)}}

  defp owner_call(_request, _from, %{tube: nil} = state), do: {:reply, {:error, :closed}, state}

  defp owner_call({:hold, new_owner}, _from, state) do
    with true <- owner?(new_owner), {:ok, %{active: active}} <- Native.info(state.tube.id) do
      Native.Driver.active(state.tube.port, 0)
      {:reply, {:ok, active}, state}
    else
      false -> {:reply, {:error, :einval}, state}
      error -> {:reply, error, state}
    end
  end

  defp owner_call({:give, pid, active}, _from, state) do
    if owner?(pid) do
      active = if active == :initial, do: Link.encode_active(state.options.active), else: active
      Native.link_owner(state.tube.id, pid)
      state = %{state | owner: Owner.change(state.owner, pid)}
      {:reply, Native.Driver.active(state.tube.port, active), state}
    else
      {:reply, {:error, :einval}, state}
    end
  end

  defp owner_call({:set, options}, _from, state),
    do: {:reply, :ok, Enum.reduce(options, state, &set_option/2)}

  # What was accepted is sent before the end is said.
  defp owner_call(:shutdown, _from, state) do
    state = %{state | shutting: true}
    {:reply, :ok, if(CommandQueue.empty?(state.commands), do: shut(state), else: state)}
  end

  defp owner_call(:close, from, %{closing: closing} = state) when closing in [nil, :suspend],
    do: settle(close(state, from))

  defp owner_call(:close, _from, state), do: {:reply, {:error, :closed}, state}

  defp set_option({:send_timeout, limit}, state) do
    Registry.update_value(Tube.Registry, {:tube, state.tube.id}, &%{&1 | send_timeout: limit})
    put_in(state.options.send_timeout, limit)
  end

  defp set_option({:poll, poll}, state) do
    poller = BusyPoller.set(state.poller, state.tube, poll)
    put_in(%{state | poller: poller}.options.poll, poll)
  end

  defp owner?(pid), do: node(pid) == node() and Process.alive?(pid)

  @impl true
  def handle_info({:xenstore, ref, result}, state), do: tell(state, {:store, ref, result})

  # Acknowledged first, so that what changes while we look is told again.
  def handle_info({:xenstore_watch, token, _path}, state) do
    Xenstore.ack(state.domain.store, token)
    tell(state, {:watch, token})
  end

  def handle_info({:xenstore_lost, _client}, state), do: store_lost(state)
  def handle_info({:tube_domain, :lost}, state), do: store_lost(state)

  # Some domain has ended: is it the peer's?
  def handle_info({:tube_domain, :released}, state), do: tell(state, {:watch, :peer})

  def handle_info({:tube_domain, :attached, domain}, state) do
    # What was lost between our start and our subscription nobody told us.
    state = if state.store_up, do: event(state, :store_lost), else: state
    tell(%{state | domain: domain, store_up: true}, {:store_back, State.nonce()})
  end

  def handle_info({:timer, name, ref}, state) do
    case state.timers do
      %{^name => {_timer, ^ref}} ->
        tell(%{state | timers: Map.delete(state.timers, name)}, {:timeout, name})

      _cancelled ->
        {:noreply, state}
    end
  end

  def handle_info({:"$tube", id, event}, %{tube: %{id: id}} = state), do: driver(event, state)

  def handle_info({:"$tube_space", id}, %{tube: %{id: id}} = state),
    do: settle(commands(state, CommandQueue.resume(state.commands, id)))

  def handle_info(:linger_over, state),
    do: settle(if(CommandQueue.empty?(state.commands), do: state, else: finish(state)))

  # What the peer has not taken by now is lost, and what is left in the store is swept up later.
  def handle_info(:suspend_over, %{suspenders: [_ | _] = suspenders} = state) do
    for from <- suspenders, do: GenServer.reply(from, {:ok, :cut_short})
    if state.role == :tip, do: Dispatcher.over(self())
    failed = state.failed || :suspended
    state = %{state | ended: state.ended || failed, failed: failed, suspenders: []}
    settle(let_go(state))
  end

  # Somebody closed the port under us: the rings are gone with it.
  def handle_info({:EXIT, port, _reason}, %{tube: %{port: port}} = state),
    do: tell(%{state | tube: nil}, :gone)

  # It ends by itself when the tube does. Somebody killed it: then there is a bell again.
  def handle_info({:EXIT, pid, _reason}, %{poller: pid, tube: tube} = state) when pid != nil do
    {:noreply, if(tube, do: set_option({:poll, :off}, state), else: state)}
  end

  def handle_info({:EXIT, pid, _reason}, state) when is_pid(pid), do: owner_down(pid, state)
  def handle_info({:DOWN, _ref, :process, pid, _reason}, state), do: owner_down(pid, state)

  def handle_info({from, request}, %{listening: true, tube: tube} = state)
      when is_pid(from) and tube != nil do
    if Owner.is?(state.owner, from) do
      port_request(request, from, state)
    else
      # As a port answers one who is not its owner.
      Process.exit(from, :badsig)
      {:noreply, state}
    end
  end

  def handle_info(_late, state), do: {:noreply, state}

  ## The manners of a port

  defp port_request({:command, data}, from, state) do
    case flatten(data) do
      {:ok, message} ->
        settle(commands(state, CommandQueue.push(state.commands, state.tube.id, message)))

      :error ->
        bad_signal(from, state)
    end
  end

  defp port_request({:connect, pid}, from, state) when is_pid(pid) do
    case owner_call({:give, pid, :initial}, from, state) do
      {:reply, :ok, state} ->
        send(from, {self(), :connected})
        {:noreply, state}

      {:reply, {:error, _reason}, state} ->
        bad_signal(from, state)
    end
  end

  defp port_request(:close, from, state), do: settle(close(state, {:port, from}))
  defp port_request(_other, from, state), do: bad_signal(from, state)

  defp flatten(data) do
    {:ok, IO.iodata_to_binary(data)}
  rescue
    ArgumentError -> :error
  end

  defp bad_signal(from, state) do
    Process.exit(from, :badsig)
    {:noreply, state}
  end

  ## What happens to the tube

  defp driver(:drained, state), do: tell(%{state | drained: true}, :drained)

  # The rings have nothing more to say, whatever is still to be done in the store.
  defp driver(:owner_told, %{failed: reason} = state) when reason != nil,
    do: settle(let_go(%{state | owner_told: true}))

  defp driver(:owner_told, state), do: settle(%{state | owner_told: true})
  defp driver(event, state), do: tell(state, event)

  defp store_lost(%{store_up: false} = state), do: {:noreply, state}
  defp store_lost(state), do: tell(%{state | store_up: false}, :store_lost)

  defp owner_down(pid, state) do
    if Owner.is?(state.owner, pid),
      do: settle(close(%{state | owner: nil}, state.closer, :owner_down)),
      else: {:noreply, state}
  end

  # What was accepted is sent before the end is said, if the peer takes it in time.
  defp close(state, closer, event \\ :close) do
    state = %{state | closer: closer, closing: event}

    if CommandQueue.empty?(state.commands) do
      finish(state)
    else
      Process.send_after(self(), :linger_over, state.options.linger)
      state
    end
  end

  defp finish(%{closing: event} = state),
    do: event(%{shut(state) | commands: CommandQueue.give_up(state.commands)}, event)

  defp shut(state) do
    Link.shut(state.tube)
    state
  end

  # The owner has not asked for it, so it gets what had arrived, and is told.
  defp suspend(%{connected: false} = state), do: event(state, :suspend)

  defp suspend(%{closing: nil, tube: tube} = state) do
    if tube, do: Native.Driver.suspend(tube.port)
    close(%{state | failed: state.failed || :suspended}, state.closer, :suspend)
  end

  defp suspend(closing), do: event(closing, :suspend)

  defp commands(state, {:ok, commands}) do
    state = %{state | commands: commands}

    cond do
      not CommandQueue.empty?(commands) -> state
      state.closing != nil -> finish(state)
      state.shutting -> shut(state)
      true -> state
    end
  end

  # A port's owner whose command the driver cannot take is ended with the reason.
  defp commands(state, {:refused, reason, commands}) do
    if state.owner, do: Process.exit(state.owner.pid, reason)
    commands(state, {:ok, commands})
  end

  # The link has ended, and says so by an event of its own.
  defp commands(state, {:error, _reason}),
    do: commands(state, {:ok, CommandQueue.give_up(state.commands)})

  ## The machine

  defp tell(state, event), do: settle(event(state, event))

  defp event(%{ended: nil} = state, event) do
    {machine, ops} = state.module.handle(state.machine, event)
    run(%{state | machine: machine}, ops)
  end

  defp event(state, _late), do: state

  # Some operations are answered on the spot; their events follow once all operations are done.
  defp run(state, ops) do
    {state, events} = Enum.reduce(ops, {state, []}, &Effects.carry_out/2)
    events |> Enum.reverse() |> Enum.reduce(state, &event(&2, &1))
  end

  ## The end

  @doc """
  Frees the rings. If the owner has still to hear something through them, it does so from a copy. For
  `Effects`.
  """
  @spec let_go(State.t()) :: State.t()
  def let_go(state) do
    if State.owner_unaware?(state), do: cut(state), else: free(state)
  end

  defp cut(%{cut: true} = state), do: state

  defp cut(state) do
    Link.cut(state.tube, state.failed)
    %{state | cut: true}
  end

  defp free(state) do
    span = Telemetry.ended(state.span, state.tube, State.why(state))
    Link.free(state.tube)
    %{state | tube: nil, span: span}
  end

  # The machine may stop before the owner has heard of it: the link still holds what the peer sent, and
  # the reason. Then this process stays until the owner has taken all and been told, closes, or ends.
  defp settle(state) do
    state = state |> answer() |> given_back()

    if state.ended == nil or State.owner_unaware?(state) or State.unasked?(state) do
      {:noreply, state}
    else
      state = state |> free() |> given_back()
      CommandQueue.give_up(state.commands)
      forget()
      # Who never had the tube has the answer of open/2, and nothing else. Who closed knows why.
      reason = if state.closing in [nil, :suspend], do: state.failed || state.ended, else: :closed
      Owner.told(state.connected && state.owner, reason, state.closer)
      {:stop, :normal, state}
    end
  end

  defp given_back(state) do
    if State.gone?(state) do
      for from <- state.suspenders, do: GenServer.reply(from, :ok)
      %{state | suspenders: []}
    else
      state
    end
  end

  # Who is told of the end finds the tube nowhere, and its number free. The registry by itself would
  # learn of it some time after this process has ended.
  defp forget do
    for key <- Registry.keys(Tube.Registry, self()), do: Registry.unregister(Tube.Registry, key)
  end

  defp answer(%{opener: nil} = state), do: state

  defp answer(state) do
    case state do
      %{failed: reason} when reason != nil -> reply(state, {:error, reason})
      %{connected: true} -> reply(state, {:ok, state.tube})
      _not_yet -> state
    end
  end

  defp reply(state, answer) do
    GenServer.reply(state.opener, answer)
    %{state | opener: nil}
  end

  # The library is being stopped: what we have in the store goes with us. The peer hears of it by
  # the end of our rings.
  @impl true
  def terminate(_reason, %{ended: nil, store_up: true} = state) do
    Link.shut(state.tube)
    Effects.transaction(state, state.module.remove(state.machine), timeout: 1_000)
  end

  def terminate(_reason, _state), do: :ok
end
