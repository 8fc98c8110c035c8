defmodule Tube.Xenstore.Session do
  @moduledoc false
  # What one connection owes to whom: jobs, transactions of functions, subscriptions. The client
  # process holds it and moves the bytes; everything here happens in that process.
  #
  # A job is an operation (`Operation`) with a caller and a time limit. The reply to a request whose
  # job has ended is thrown away, but for one thing: a transaction that it opened is ended.

  alias Tube.Xenstore.{Operation, Path, Pipeline, Request, Watches}

  defstruct [
    :pipeline,
    jobs: %{},
    waiting: %{},
    transactions: %{},
    groups: %{},
    watches: Watches.new(),
    monitors: %{}
  ]

  @typedoc "How a result is given: as the answer of a call, as a message, or as an open transaction."
  @type caller ::
          {:call, GenServer.from()}
          | {:message, pid(), ref :: term()}
          | {:begin, GenServer.from(), timeout :: non_neg_integer()}
          | {:one_of, group :: reference(), place :: non_neg_integer()}

  @typedoc "What a timer of a session sends to its process: `{:timeout, timer, what}`."
  @type timer :: {:limit | :wake | :transaction, reference()}

  @opaque t :: %__MODULE__{}

  @spec new(max_payload :: pos_integer()) :: t()
  def new(max_payload), do: %__MODULE__{pipeline: Pipeline.new(max_payload)}

  @doc "Takes the next packet to send, if there is one that may be sent now."
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

  @doc "Does several operations in order; the caller gets all results at once, in a list."
  @spec run_all(t(), GenServer.from(), reference() | nil, [term(), ...], non_neg_integer()) :: t()
  def run_all(session, from, ref, ops, timeout) do
    group = make_ref()
    groups = Map.put(session.groups, group, %{from: from, results: [], missing: length(ops)})

    ops
    |> Enum.with_index()
    |> Enum.reduce(%{session | groups: groups}, fn {op, place}, session ->
      run(session, {:one_of, group, place}, ref, op, 1, timeout)
    end)
  end

  @doc "Opens a transaction for the process that called."
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
          |> attend(pid, watches)
          |> push({:watch, wire}, {:watch, path, wire}, 0)
          |> wait(key, caller, timeout)

        {:wait, watches} ->
          session |> attend(pid, watches) |> wait(key, caller, timeout)

        {:watched, watches} ->
          session |> attend(pid, watches) |> reply(caller, :ok) |> open(key, true)

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

  @doc "A timer of this session has gone off."
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

  @doc "The connection has ended: tells everybody who waits for something."
  @spec lose(t()) :: :ok
  def lose(session) do
    _ =
      Enum.reduce(session.jobs, session, fn {_job, job}, session ->
        reply(session, job.caller, {:error, :store_lost})
      end)

    for pid <- Watches.subscribers(session.watches), do: send(pid, {:xenstore_lost, self()})
    :ok
  end

  @doc "Gives a caller its result."
  @spec answer(caller(), term()) :: term()
  def answer({:call, from}, result), do: GenServer.reply(from, result)
  def answer({:begin, from, _timeout}, result), do: GenServer.reply(from, result)
  def answer({:message, pid, ref}, result), do: send(pid, {:xenstore, ref, result})

  @doc "How much there is of everything."
  @spec info(t()) :: %{atom() => non_neg_integer()}
  def info(session) do
    Map.merge(Pipeline.info(session.pipeline), %{
      jobs: map_size(session.jobs),
      groups: map_size(session.groups),
      transactions: map_size(session.transactions),
      watches: Watches.count(session.watches),
      monitors: map_size(session.monitors)
    })
  end

  # For requests made here, known to be well formed, whose reply no job waits for.
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

  # Its timer had gone off when it was done.
  defp expire(_job, session), do: session

  defp reply(session, {:one_of, group, place}, result) do
    case session.groups do
      %{^group => %{missing: 1} = last} ->
        results = Enum.sort([{place, result} | last.results])
        GenServer.reply(last.from, Enum.map(results, fn {_place, result} -> result end))
        %{session | groups: Map.delete(session.groups, group)}

      %{^group => %{missing: missing, results: results} = some} ->
        some = %{some | missing: missing - 1, results: [{place, result} | results]}
        %{session | groups: %{session.groups | group => some}}
    end
  end

  defp reply(session, caller, result) do
    answer(caller, result)
    session
  end

  ## What comes from the store

  defp event({:reply, {:job, job}, _type, reply}, session) when is_map_key(session.jobs, job),
    do: session.jobs[job].operation |> Operation.reply(reply) |> step(job, session)

  # Nobody waits for it any more, so nobody will end it.
  defp event({:reply, {:job, _ended}, :transaction_start, {:ok, payload}}, session) do
    {:ok, id} = Request.decode(:transaction_start, payload)
    push(session, :cleanup, {:transaction_end, false}, id)
  end

  # The store has the watch already: its events reach us just as well.
  defp event({:reply, {:watch, wire}, _type, {:error, :eexist}}, session),
    do: confirm(wire, false, session)

  defp event({:reply, {:watch, wire}, _type, {:ok, _}}, session), do: confirm(wire, true, session)

  defp event({:reply, {:watch, wire}, _type, error}, session) do
    {keys, watches} = Watches.refuse(session.watches, wire)

    Enum.reduce(
      keys,
      %{session | watches: watches},
      &(&1 |> waited(error, &2) |> forget(elem(&1, 0)))
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

  # Its process has ended, or has taken too long.
  defp abort(ref, session) do
    case close_transaction(ref, session) do
      {nil, session} -> session
      {id, session} -> push(session, :cleanup, {:transaction_end, false}, id)
    end
  end

  ## Subscriptions

  defp attend(session, pid, watches) do
    monitors = Map.put_new_lazy(session.monitors, pid, fn -> Process.monitor(pid) end)
    %{session | watches: watches, monitors: monitors}
  end

  # Until the store has answered.
  defp wait(session, key, caller, timeout) do
    job = make_ref()
    session = add_job(session, job, caller, {:watch, key}, timeout)
    %{session | waiting: Map.put(session.waiting, key, job)}
  end

  defp waited(key, result, session) do
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
    Enum.reduce(keys, %{session | watches: watches}, &(&1 |> waited(:ok, &2) |> open(&1, fresh?)))
  end

  defp open(session, key, fresh?) do
    {messages, watches} = Watches.open(session.watches, key, fresh?)
    deliver(messages)
    %{session | watches: watches}
  end

  defp drop({pid, _token} = key, session) do
    {last, watches} = Watches.remove(session.watches, key)
    session = waited(key, {:error, :enoent}, %{session | watches: watches})

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
