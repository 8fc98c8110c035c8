defmodule Tube.Xenstore.Session do
  @moduledoc false
  # The state of one connection: jobs, transactions of functions, subscriptions. The client process
  # holds it and moves the bytes; everything here runs in that process.
  #
  # A job is an operation (`Operation`) with a caller and a time limit. The reply to a request whose
  # job has ended is dropped, except that a transaction which it opened is ended.

  alias Tube.Xenstore.{Operation, Pipeline, Replies, Watches}
  alias Tube.Xenstore.Wire.{Path, Request}

  defstruct [
    :pipeline,
    jobs: %{},
    waiting: %{},
    transactions: %{},
    groups: Replies.new(),
    watches: Watches.new(),
    monitors: %{}
  ]

  @type caller :: Replies.caller()

  @typedoc "The content of a timer's message: `{:timeout, timer, content}`."
  @type timer :: {:limit | :wake | :transaction, reference()}

  @opaque t :: %__MODULE__{}

  @spec new(max_payload :: pos_integer()) :: t()
  def new(max_payload), do: %__MODULE__{pipeline: Pipeline.new(max_payload)}

  @doc "Takes the next packet to send, if one may be sent now."
  @spec next(t()) :: {:send, binary(), t()} | {:idle, t()}
  def next(session) do
    wanted? = fn
      {:job, job} -> is_map_key(session.jobs, job)
      _watch_or_cleanup -> true
    end

    case Pipeline.next(session.pipeline, wanted?) do
      {:idle, pipeline} -> {:idle, %{session | pipeline: pipeline}}
      {:send, packet, pipeline} -> {:send, packet, %{session | pipeline: pipeline}}
    end
  end

  @doc "Takes bytes of the stream. An error is the end of the connection."
  @spec feed(t(), binary()) :: {:ok, t()} | {:error, String.t()}
  def feed(session, bytes) do
    with {:ok, events, pipeline} <- Pipeline.feed(session.pipeline, bytes),
         do: {:ok, Enum.reduce(events, %{session | pipeline: pipeline}, &event/2)}
  end

  @doc "Does an operation, in the transaction `ref` if that is not nil."
  @spec run(t(), caller(), reference() | nil, term(), pos_integer(), non_neg_integer()) :: t()
  def run(session, caller, nil, op, tries, timeout),
    do: op |> Operation.start(0, tries) |> start(caller, timeout, session)

  def run(session, caller, ref, op, tries, timeout) do
    case session.transactions do
      %{^ref => %{id: id}} -> op |> Operation.start(id, tries) |> start(caller, timeout, session)
      _ended -> reply(session, caller, {:error, :closed})
    end
  end

  @doc "Does several operations in order. The caller gets all results as one list."
  @spec run_all(t(), GenServer.from(), reference() | nil, [term(), ...], non_neg_integer()) :: t()
  def run_all(session, from, ref, ops, timeout) do
    {group, groups} = Replies.add_group(session.groups, from, length(ops))

    ops
    |> Enum.with_index()
    |> Enum.reduce(%{session | groups: groups}, fn {op, place}, session ->
      run(session, {:one_of, group, place}, ref, op, 1, timeout)
    end)
  end

  @doc "Opens a transaction for the calling process."
  @spec begin(t(), GenServer.from(), non_neg_integer()) :: t()
  def begin(session, from, timeout) do
    :transaction_start |> Operation.request(0) |> start({:begin, from, timeout}, timeout, session)
  end

  @doc "Ends a transaction."
  @spec finish(t(), caller(), reference(), boolean(), non_neg_integer()) :: t()
  def finish(session, caller, ref, commit?, timeout) do
    case close_transaction(ref, session) do
      {nil, session} ->
        reply(session, caller, {:error, :closed})

      {id, session} ->
        end_it = Operation.request({:transaction_end, commit?}, id)
        start(end_it, caller, timeout, session)
    end
  end

  @doc "Adds a subscription of the process in `key`."
  @spec subscribe(t(), caller(), Watches.key(), term(), term(), non_neg_integer()) :: t()
  def subscribe(session, caller, {pid, _token} = key, path, interest, timeout) do
    if Path.watchable?(path) and Path.watchable?(interest) and Path.related?(path, interest) do
      case Watches.add(session.watches, key, path, interest) do
        {:register, wire, watches} ->
          session
          |> monitor(pid, watches)
          |> push({:watch, wire}, {:watch, path, wire}, 0)
          |> await(key, caller, timeout)

        {:wait, watches} ->
          session |> monitor(pid, watches) |> await(key, caller, timeout)

        {:watched, watches} ->
          session |> monitor(pid, watches) |> reply(caller, :ok) |> open(key, true)

        {:error, :eexist} = error ->
          reply(session, caller, error)
      end
    else
      reply(session, caller, {:error, :einval})
    end
  end

  @doc "Ends a subscription."
  @spec unsubscribe(t(), caller(), Watches.key()) :: t()
  def unsubscribe(session, caller, key) do
    result = if Watches.member?(session.watches, key), do: :ok, else: {:error, :enoent}
    key |> drop(session) |> reply(caller, result)
  end

  @doc "The subscriber has taken its event."
  @spec acknowledge(t(), Watches.key()) :: t()
  def acknowledge(session, key) do
    {messages, watches} = Watches.acknowledge(session.watches, key)
    deliver(messages)
    %{session | watches: watches}
  end

  @doc "A timer of this session has fired."
  @spec timeout(t(), timer()) :: t()
  def timeout(session, {:limit, job}), do: expire(job, session)
  def timeout(session, {:transaction, ref}), do: abort(ref, session)

  def timeout(session, {:wake, job}) do
    case session.jobs do
      %{^job => %{operation: operation}} -> operation |> Operation.wake() |> step(job, session)
      _ended -> session
    end
  end

  @doc "A process that was monitored has ended."
  @spec down(t(), reference(), pid()) :: t()
  def down(session, monitor, pid) do
    case session.monitors do
      %{^pid => ^monitor} ->
        session.watches |> Watches.tokens(pid) |> Enum.reduce(session, &drop({pid, &1}, &2))

      _of_a_transaction ->
        session.transactions
        |> Enum.find_value(fn {ref, tx} -> if tx.monitor == monitor, do: ref end)
        |> abort(session)
    end
  end

  @doc "The connection has ended: informs all callers and subscribers."
  @spec lose(t()) :: :ok
  def lose(session) do
    _ =
      Enum.reduce(session.jobs, session, fn {_job, job}, session ->
        reply(session, job.caller, {:error, :store_lost})
      end)

    for pid <- Watches.subscribers(session.watches), do: send(pid, {:xenstore_lost, self()})
    :ok
  end

  # For well-formed requests made here, whose reply no job waits for.
  defp push(session, owner, request, tx) do
    {:ok, pipeline} = Pipeline.push(session.pipeline, owner, request, tx)
    %{session | pipeline: pipeline}
  end

  ## Jobs

  defp start(step, caller, timeout, session) do
    job = make_ref()
    step(step, job, add_job(session, job, caller, nil, timeout))
  end

  defp add_job(session, job, caller, operation, timeout) do
    timer = :erlang.start_timer(timeout, self(), {:limit, job})

    %{
      session
      | jobs: Map.put(session.jobs, job, %{caller: caller, operation: operation, timer: timer})
    }
  end

  defp step({:send, request, tx, operation}, job, session) do
    case Pipeline.push(session.pipeline, {:job, job}, request, tx) do
      {:ok, pipeline} -> put_operation(%{session | pipeline: pipeline}, job, operation)
      {:error, reason} -> operation |> Operation.reply({:error, reason}) |> step(job, session)
    end
  end

  defp step({:sleep, pause, operation}, job, session) do
    :erlang.start_timer(pause, self(), {:wake, job})
    put_operation(session, job, operation)
  end

  defp step({:done, result}, job, session) do
    {%{caller: caller}, session} = pop_job(job, session)

    case {caller, result} do
      {{:begin, from, timeout}, {:ok, id}} -> open_transaction(from, timeout, id, session)
      _other -> reply(session, caller, result)
    end
  end

  defp put_operation(session, job, operation),
    do: %{session | jobs: Map.update!(session.jobs, job, &%{&1 | operation: operation})}

  defp pop_job(job, session) do
    {found, jobs} = Map.pop!(session.jobs, job)
    :erlang.cancel_timer(found.timer)
    {found, %{session | jobs: jobs}}
  end

  defp expire(job, session) when is_map_key(session.jobs, job) do
    {%{caller: caller, operation: operation}, session} = pop_job(job, session)
    session = reply(session, caller, {:error, :timeout})

    case operation do
      {:watch, key} ->
        drop(key, %{session | waiting: Map.delete(session.waiting, key)})

      operation ->
        case Operation.left_open(operation) do
          nil -> session
          id -> push(session, :cleanup, {:transaction_end, false}, id)
        end
    end
  end

  # Its timer fired just before it was done.
  defp expire(_job, session), do: session

  defp reply(session, {:one_of, group, place}, result),
    do: %{session | groups: Replies.add_result(session.groups, group, place, result)}

  defp reply(session, caller, result) do
    Replies.send(caller, result)
    session
  end

  ## Packets of the store

  defp event({:reply, {:job, job}, _type, reply}, session) when is_map_key(session.jobs, job),
    do: session.jobs[job].operation |> Operation.reply(reply) |> step(job, session)

  # The job has ended, so nobody else will end its transaction.
  defp event({:reply, {:job, _ended}, :transaction_start, {:ok, payload}}, session) do
    {:ok, id} = Request.decode(:transaction_start, payload)
    push(session, :cleanup, {:transaction_end, false}, id)
  end

  # The store has the watch already: its events reach us all the same.
  defp event({:reply, {:watch, wire}, _type, {:error, :eexist}}, session),
    do: confirm(wire, false, session)

  defp event({:reply, {:watch, wire}, _type, {:ok, _}}, session), do: confirm(wire, true, session)

  defp event({:reply, {:watch, wire}, _type, error}, session) do
    {keys, watches} = Watches.refuse(session.watches, wire)

    Enum.reduce(
      keys,
      %{session | watches: watches},
      &(&1 |> stop_waiting(error, &2) |> forget(elem(&1, 0)))
    )
  end

  defp event({:reply, _ended_or_cleanup, _type, _reply}, session), do: session

  defp event({:watch, path, wire}, session) do
    {messages, watches} = Watches.event(session.watches, wire, path)
    deliver(messages)
    %{session | watches: watches}
  end

  defp deliver(messages), do: Enum.each(messages, fn {pid, message} -> send(pid, message) end)

  ## Transactions of functions

  defp open_transaction({pid, _} = from, timeout, id, session) do
    ref = make_ref()
    timer = :erlang.start_timer(timeout, self(), {:transaction, ref})
    transaction = %{id: id, monitor: Process.monitor(pid), timer: timer}
    GenServer.reply(from, {:ok, ref})
    %{session | transactions: Map.put(session.transactions, ref, transaction)}
  end

  defp close_transaction(ref, session) do
    case Map.pop(session.transactions, ref) do
      {nil, _transactions} ->
        {nil, session}

      {%{id: id, monitor: monitor, timer: timer}, transactions} ->
        Process.demonitor(monitor, [:flush])
        :erlang.cancel_timer(timer)
        {id, %{session | transactions: transactions}}
    end
  end

  # Its process has ended, or its time is over.
  defp abort(ref, session) do
    case close_transaction(ref, session) do
      {nil, session} -> session
      {id, session} -> push(session, :cleanup, {:transaction_end, false}, id)
    end
  end

  ## Subscriptions

  defp monitor(session, pid, watches) do
    monitors = Map.put_new_lazy(session.monitors, pid, fn -> Process.monitor(pid) end)
    %{session | watches: watches, monitors: monitors}
  end

  # Waits for the store's reply.
  defp await(session, key, caller, timeout) do
    job = make_ref()
    session = add_job(session, job, caller, {:watch, key}, timeout)
    %{session | waiting: Map.put(session.waiting, key, job)}
  end

  defp stop_waiting(key, result, session) do
    case Map.pop(session.waiting, key) do
      {nil, _waiting} ->
        session

      {job, waiting} ->
        {%{caller: caller}, session} = pop_job(job, %{session | waiting: waiting})
        reply(session, caller, result)
    end
  end

  defp confirm(wire, fresh?, session) do
    {keys, watches} = Watches.confirm(session.watches, wire)

    Enum.reduce(
      keys,
      %{session | watches: watches},
      &(&1 |> stop_waiting(:ok, &2) |> open(&1, fresh?))
    )
  end

  defp open(session, key, fresh?) do
    {messages, watches} = Watches.open(session.watches, key, fresh?)
    deliver(messages)
    %{session | watches: watches}
  end

  defp drop({pid, _token} = key, session) do
    {last, watches} = Watches.remove(session.watches, key)
    session = stop_waiting(key, {:error, :enoent}, %{session | watches: watches})

    case last do
      {:unwatch, path, wire} -> push(session, :cleanup, {:unwatch, path, wire}, 0)
      :more -> session
    end
    |> forget(pid)
  end

  defp forget(session, pid) do
    if Watches.tokens(session.watches, pid) == [] and is_map_key(session.monitors, pid) do
      {monitor, monitors} = Map.pop!(session.monitors, pid)
      Process.demonitor(monitor, [:flush])
      %{session | monitors: monitors}
    else
      session
    end
  end
end
