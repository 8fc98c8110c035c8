defmodule Tube.Connection.Server do
  @moduledoc false
  # The process of a tube: it carries out its handshake, holds its port, and ends it.
  #
  # What to do is decided elsewhere, in pure data: `Tube.Handshake` says which store request, watch,
  # timer or native call comes next, `Tube.Connection.Ending` how the tube ends.
  # `Tube.Connection.Effects` does it, and this process passes on what came of it. Messages do not pass
  # through here: senders and the owner call `Tube.Native`, and the driver's port delivers to the
  # owner. To the owner this process is the port.

  use GenServer, restart: :temporary

  alias Tube.Connection.{BusyPoller, CommandQueue, Effects, Ending, Link, Owner, Registry, State}
  alias Tube.{Domain, Label, Native, Telemetry, Xenstore}

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
  def handle_continue(ops, state), do: state |> run(ops) |> next()

  # From the process that opens, once. The reply waits for the result.
  @impl true
  def handle_call(:await, from, state), do: state |> ending({:await, from}) |> next()

  def handle_call(:info, _from, state), do: {:reply, State.info(state), state}

  def handle_call({:suspend, ms}, from, state) do
    Process.send_after(self(), :suspend_timeout, ms)
    state |> ending({:suspend, from}) |> next()
  end

  def handle_call(:options, _from, %{tube: nil} = state), do: {:reply, {:error, :closed}, state}
  def handle_call(:options, _from, state), do: {:reply, {:ok, state.options}, state}

  # For `:tube`, and from anyone, as a port takes them.
  def handle_call({request, _}, _from, %{tube: tube, ending: ending} = state)
      when request in [:room, :command] and (tube == nil or ending.request != nil),
      do: {:reply, {:error, :closed}, state}

  def handle_call({:room, :reply}, from, state), do: ask_room(state, {:reply, from})

  def handle_call({:room, {:send, _pid} = asker}, from, state) do
    GenServer.reply(from, :ok)
    ask_room(state, asker)
  end

  # The reply comes when there is room again, as a busy port suspends the process that commands it.
  def handle_call({:command, message}, from, state) do
    case CommandQueue.push(state.commands, state.tube.id, message) do
      {:ok, commands} ->
        ask_room(queued(state, commands), {:reply, from})

      {:refused, reason, commands} ->
        state |> queued(commands) |> reply(from, {:error, reason})

      {:error, _reason} = error ->
        {:reply, error, state}
    end
  end

  def handle_call(request, {caller, _tag} = from, state) do
    if Owner.is?(state.owner, caller),
      do: owner_call(request, from, state),
      else: {:reply, {:error, :not_owner}, state}
  end

  defp ask_room(state, asker),
    do: next(%{state | commands: CommandQueue.ask(state.commands, state.tube.id, asker)})

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

  defp owner_call(:shutdown, from, state), do: state |> ending(:shutdown) |> reply(from, :ok)

  defp owner_call(:close, from, state), do: state |> ending({:close, from}) |> next()

  defp set_option({:send_timeout, limit}, state) do
    Registry.set_send_timeout(state.tube.id, limit)
    put_in(state.options.send_timeout, limit)
  end

  defp set_option({:poll, poll}, state) do
    poller = BusyPoller.set(state.poller, state.tube, poll)
    put_in(%{state | poller: poller}.options.poll, poll)
  end

  defp owner?(pid), do: node(pid) == node() and Process.alive?(pid)

  @impl true
  def handle_info({:xenstore, ref, result}, state),
    do: state |> machine({:store, ref, result}) |> next()

  # Acknowledged before it is handled, so that a change meanwhile fires the watch again.
  def handle_info({:xenstore_watch, token, _path}, state) do
    Xenstore.ack(state.domain.store, token)
    state |> machine({:watch, token}) |> next()
  end

  def handle_info({:xenstore_lost, _client}, state), do: store_lost(state)
  def handle_info({:tube_domain, :lost}, state), do: store_lost(state)

  # Some domain has ended: is it the peer's?
  def handle_info({:tube_domain, :released}, state),
    do: state |> machine({:watch, :peer}) |> next()

  def handle_info({:tube_domain, :attached, domain}, state) do
    # A loss between our start and our subscription has sent us nothing.
    state = if state.store_up, do: machine(state, :store_lost), else: state

    %{state | domain: domain, store_up: true}
    |> machine({:store_back, State.nonce()})
    |> next()
  end

  def handle_info({:timer, name, ref}, state) do
    case state.timers do
      %{^name => {_timer, ^ref}} ->
        %{state | timers: Map.delete(state.timers, name)} |> machine({:timeout, name}) |> next()

      _cancelled ->
        {:noreply, state}
    end
  end

  def handle_info({:"$tube", id, event}, %{tube: %{id: id}} = state),
    do: state |> link(event) |> next()

  def handle_info({:"$tube_space", id}, %{tube: %{id: id}} = state),
    do: state |> sent(CommandQueue.resume(state.commands, id)) |> next()

  def handle_info(:linger_timeout, state), do: state |> ending(:linger_timeout) |> next()
  def handle_info(:suspend_timeout, state), do: state |> ending(:suspend_timeout) |> next()

  # Somebody closed the port under us: the link is freed with it.
  def handle_info({:EXIT, port, _reason}, %{tube: %{port: port}} = state),
    do: %{state | tube: nil} |> ending(:link_closed) |> machine(:gone) |> next()

  # It ends by itself when the tube does. If somebody killed it, notifications must be asked for again.
  def handle_info({:EXIT, pid, _reason}, %{poller: pid, tube: tube} = state) when pid != nil do
    {:noreply, if(tube, do: set_option({:poll, :off}, state), else: state)}
  end

  def handle_info({:EXIT, pid, _reason}, state) when is_pid(pid), do: owner_down(pid, state)
  def handle_info({:DOWN, _ref, :process, pid, _reason}, state), do: owner_down(pid, state)

  def handle_info({from, request}, state) when is_pid(from) do
    cond do
      not Ending.serves_owner?(state.ending) ->
        {:noreply, state}

      Owner.is?(state.owner, from) ->
        port_request(request, from, state)

      true ->
        # As a port answers a process that is not its owner.
        Process.exit(from, :badsig)
        {:noreply, state}
    end
  end

  def handle_info(_late, state), do: {:noreply, state}

  ## Requests to a port

  defp port_request({:command, data}, from, state) do
    case flatten(data) do
      {:ok, message} ->
        state |> sent(CommandQueue.push(state.commands, state.tube.id, message)) |> next()

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

  defp port_request(:close, from, state), do: state |> ending({:close, {:port, from}}) |> next()
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

  defp sent(state, {:ok, commands}), do: queued(state, commands)

  # A port's owner whose command the driver cannot take is ended with the reason.
  defp sent(state, {:refused, reason, commands}) do
    if state.owner, do: Process.exit(state.owner.pid, reason)
    queued(state, commands)
  end

  # The link has ended, and reports it by an event.
  defp sent(state, {:error, _reason}), do: queued(state, CommandQueue.give_up(state.commands))

  defp queued(state, commands) do
    state = %{state | commands: commands}
    ending(state, {:unsent, not CommandQueue.empty?(commands)})
  end

  ## Events of others

  defp link(state, :owner_told), do: ending(state, :owner_told)

  defp link(state, event) when event in [:drained, :protocol],
    do: state |> ending(event) |> machine(event)

  defp link(state, event), do: machine(state, event)

  defp store_lost(%{store_up: false} = state), do: {:noreply, state}
  defp store_lost(state), do: %{state | store_up: false} |> machine(:store_lost) |> next()

  defp owner_down(pid, state) do
    if Owner.is?(state.owner, pid),
      do: %{state | owner: nil} |> ending(:owner_down) |> next(),
      else: {:noreply, state}
  end

  ## The machines

  # The handshake's machine. Once it has stopped, or was cut short, it hears of nothing.
  defp machine(%{ending: %{stopped: nil}} = state, event) do
    {machine, ops} = state.module.handle(state.machine, event)
    run(%{state | machine: machine}, ops)
  end

  defp machine(state, _late), do: state

  # Some operations have a result on the spot; it follows once all operations are done.
  defp run(state, ops), do: ops |> Enum.reduce({state, []}, &Effects.carry_out/2) |> results()

  defp ending(state, event), do: event |> Effects.ending({state, []}) |> results()

  defp results({state, events}),
    do: events |> Enum.reverse() |> Enum.reduce(state, &machine(&2, &1))

  defp reply(state, from, answer) do
    GenServer.reply(from, answer)
    next(state)
  end

  defp next(%{ending: %{done: true}} = state), do: {:stop, :normal, state}
  defp next(state), do: {:noreply, state}

  # The library is being stopped: what we have in the store goes with us. The peer learns of it by
  # the end of our side of the link.
  @impl true
  def terminate(_reason, %{ending: %{stopped: nil}, store_up: true} = state) do
    Link.shutdown(state.tube)
    Effects.transaction(state, state.module.remove(state.machine), timeout: 1_000)
  end

  def terminate(_reason, _state), do: :ok
end
