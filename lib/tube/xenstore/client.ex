defmodule Tube.Xenstore.Client do
  @moduledoc false
  # The process of one connection to the store. It owns the stream and moves its bytes; `Session`
  # holds the state.
  #
  # When the stream ends or breaks the protocol, every caller gets `{:error, :store_lost}`, every
  # subscriber `{:xenstore_lost, pid}`, and the process ends: a new connection has no watches and no
  # transactions, so no state of this one is worth keeping.

  use GenServer, restart: :temporary

  alias Tube.Xenstore.{Operation, Replies, Session}

  # The pause before the next try when the stream takes no more bytes.
  @busy_retry 5

  # This process replies within the caller's limit. The call itself times out this much later, and
  # only if the process hangs.
  @slack 2_000

  defstruct [:transport, :handle, :session, :busy]

  @type reason :: Operation.reason() | :timeout | :store_lost | :closed

  @doc """
  Connects. `{module, argument}` names the `Tube.Xenstore.Transport`.

  The process is linked to the caller and ends with `{:shutdown, reason}` when the connection does.
  """
  @spec start_link({module(), term()}) :: GenServer.on_start()
  def start_link({module, _argument} = transport) when is_atom(module),
    do: GenServer.start_link(__MODULE__, transport)

  @doc "Does one operation, in the transaction `tx` if that is not nil."
  @spec run(pid(), reference() | nil, Operation.op(), pos_integer(), non_neg_integer()) ::
          :ok | {:ok, term()} | {:error, reason()}
  def run(client, tx, op, tries, timeout),
    do: call(client, {:run, tx, op, tries, timeout}, timeout)

  @doc "Does several operations, sent without waiting for replies; the results in order."
  @spec run_all(pid(), reference() | nil, [Operation.op()], non_neg_integer()) ::
          [:ok | {:ok, term()} | {:error, reason()}]
  def run_all(_client, _tx, [], _timeout), do: []

  def run_all(client, tx, ops, timeout) do
    case call(client, {:run_all, tx, ops, timeout}, timeout) do
      {:error, _gone} = error -> Enum.map(ops, fn _op -> error end)
      results -> results
    end
  end

  @doc "Opens a transaction for the calling process, for `timeout` milliseconds at most."
  @spec begin(pid(), non_neg_integer()) :: {:ok, reference()} | {:error, reason()}
  def begin(client, timeout), do: call(client, {:begin, timeout}, timeout)

  @doc "Ends a transaction."
  @spec finish(pid(), reference(), boolean(), non_neg_integer()) :: :ok | {:error, reason()}
  def finish(client, ref, commit?, timeout),
    do: call(client, {:finish, ref, commit?, timeout}, timeout)

  @doc "Subscribes the calling process."
  @spec watch(pid(), String.t(), String.t(), term(), non_neg_integer()) ::
          :ok | {:error, reason()}
  def watch(client, path, interest, token, timeout),
    do: call(client, {:watch, path, interest, token, timeout}, timeout)

  @doc "Ends a subscription of the calling process."
  @spec unwatch(pid(), term(), non_neg_integer()) ::
          :ok | {:error, :enoent | :store_lost | :timeout}
  def unwatch(client, token, timeout), do: call(client, {:unwatch, token}, timeout)

  @doc "Acknowledges the event of `token`."
  @spec acknowledge(pid(), term()) :: :ok
  def acknowledge(client, token), do: GenServer.cast(client, {:acknowledge, {self(), token}})

  @doc "Starts an operation. Its result comes as `{:xenstore, ref, result}`."
  @spec request(pid(), term(), term(), pos_integer(), non_neg_integer()) :: :ok
  def request(client, ref, op, tries, timeout) do
    GenServer.cast(client, {:request, self(), ref, op, tries, timeout})
    # A cast to a dead process is lost silently.
    unless Process.alive?(client), do: send(self(), {:xenstore, ref, {:error, :store_lost}})
    :ok
  end

  defp call(client, message, timeout) do
    GenServer.call(client, message, timeout + @slack)
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    :exit, _gone -> {:error, :store_lost}
  end

  ## The process

  @impl true
  def init({transport, argument}) do
    # So that terminate/2 runs, and that the end of a port arrives as a message.
    Process.flag(:trap_exit, true)

    case transport.open(argument) do
      {:ok, handle} ->
        session = Session.new(transport.max_payload(handle))
        {:ok, %__MODULE__{transport: transport, handle: handle, session: session}}

      {:error, reason} ->
        {:stop, {:shutdown, reason}}
    end
  end

  @impl true
  def handle_call({:run, ref, op, tries, timeout}, from, state),
    do: flush(state, Session.run(state.session, {:call, from}, ref, op, tries, timeout))

  def handle_call({:run_all, ref, ops, timeout}, from, state),
    do: flush(state, Session.run_all(state.session, from, ref, ops, timeout))

  def handle_call({:begin, timeout}, from, state),
    do: flush(state, Session.begin(state.session, from, timeout))

  def handle_call({:finish, ref, commit?, timeout}, from, state),
    do: flush(state, Session.finish(state.session, {:call, from}, ref, commit?, timeout))

  def handle_call({:watch, path, interest, token, timeout}, {pid, _tag} = from, state) do
    key = {pid, token}
    flush(state, Session.subscribe(state.session, {:call, from}, key, path, interest, timeout))
  end

  def handle_call({:unwatch, token}, {pid, _tag} = from, state),
    do: flush(state, Session.unsubscribe(state.session, {:call, from}, {pid, token}))

  @impl true
  def handle_cast({:request, pid, ref, op, tries, timeout}, state) do
    caller = {:message, pid, ref}

    session =
      case op do
        {:watch, path, interest, token} ->
          Session.subscribe(state.session, caller, {pid, token}, path, interest, timeout)

        {:unwatch, token} ->
          Session.unsubscribe(state.session, caller, {pid, token})

        _other ->
          Session.run(state.session, caller, nil, op, tries, timeout)
      end

    flush(state, session)
  end

  def handle_cast({:acknowledge, key}, state),
    do: flush(state, Session.acknowledge(state.session, key))

  @impl true
  def handle_info({:timeout, timer, :busy}, %{busy: timer} = state),
    do: flush(%{state | busy: nil}, state.session)

  def handle_info({:timeout, _timer, what}, state),
    do: flush(state, Session.timeout(state.session, what))

  def handle_info({:DOWN, monitor, :process, pid, _reason}, state),
    do: flush(state, Session.down(state.session, monitor, pid))

  def handle_info(message, state) do
    case state.transport.event(state.handle, message) do
      {:data, bytes} ->
        case Session.feed(state.session, bytes) do
          {:ok, session} -> flush(state, session)
          {:error, text} -> {:stop, {:shutdown, {:protocol, text}}, state}
        end

      {:closed, reason} ->
        {:stop, {:shutdown, {:store_lost, reason}}, state}

      :other ->
        {:noreply, state}
    end
  end

  @impl true
  def terminate(_reason, state) do
    state.transport.close(state.handle)
    Session.lose(state.session)
    refuse_requests()
  end

  # Callers in a call notice the end of this process; senders of requests need a reply.
  defp refuse_requests do
    receive do
      {:"$gen_cast", {:request, pid, ref, _op, _tries, _timeout}} ->
        Replies.send({:message, pid, ref}, {:error, :store_lost})
        refuse_requests()
    after
      0 -> :ok
    end
  end

  # The end of every callback: sends all packets that may be sent.
  defp flush(%{busy: nil} = state, session) do
    case Session.next(session) do
      {:idle, session} ->
        {:noreply, %{state | session: session}}

      {:send, packet, sent} ->
        case state.transport.send(state.handle, packet) do
          :ok ->
            flush(state, sent)

          # The session as it was before: the packet was not sent.
          :busy ->
            timer = :erlang.start_timer(@busy_retry, self(), :busy)
            {:noreply, %{state | session: session, busy: timer}}

          {:error, reason} ->
            {:stop, {:shutdown, {:store_lost, reason}}, %{state | session: session}}
        end
    end
  end

  defp flush(state, session), do: {:noreply, %{state | session: session}}
end
