defmodule Tube.Xenstore do
  @moduledoc false
  # The client API for xenstore. `store` is the pid of a connection (`Tube.Domain.store/0`) or,
  # inside `transaction/3`, the handle that is passed to its function.
  #
  # Every function waits at most for its option `:timeout` (milliseconds, 5,000 by default) and
  # returns `:ok`, `{:ok, value}` or `{:error, reason}`. Reasons:
  #
  #   * the store's own, as an atom: :enoent, :eacces, :eagain, :enospc, ...; an unknown name
  #     becomes {:xenstore, "ENAME"}
  #   * :einval also for arguments that no store would accept, :e2big for a request that is too
  #     long; nothing was sent
  #   * :timeout: no reply in time. The request may have been carried out all the same
  #   * :store_lost: the connection has ended
  #   * :protocol: the reply was malformed
  #   * :closed: the transaction has already ended
  #
  # ## Watches
  #
  # A subscriber gets {:xenstore_watch, token, changed_path}, calls `ack/2`, then reads the store.
  # In the other order it may miss a change between the read and the ack. Before the ack there is no
  # further message for that token: changes are merged and come afterwards. So a mailbox holds at
  # most one event per subscription. The path may be above the changed node (if much changed in one
  # domain), and an event may have no cause at all: always read again.
  #
  # After unwatch/2 has returned, one last event may still be in the mailbox: choose a new token for
  # the next watch.

  alias Tube.Xenstore.{Batch, Client, Operation, Transaction}

  @type store :: pid() | Transaction.t()
  @type path :: String.t()
  @type reason :: Client.reason()
  @type op :: Operation.op()
  @type limit :: [timeout: non_neg_integer()]

  @timeout 5_000
  @tries 20

  @doc "The value of a node."
  @spec read(store(), path(), limit()) :: {:ok, binary()} | {:error, reason()}
  def read(store, path, opts \\ []), do: run(store, {:read, path}, opts)

  @doc "Sets the value of a node. Creates it and its parents if they do not exist."
  @spec write(store(), path(), iodata(), limit()) :: :ok | {:error, reason()}
  def write(store, path, value, opts \\ []), do: run(store, {:write, path, value}, opts)

  @doc "Removes a node and everything below it. No error if only the node itself does not exist."
  @spec rm(store(), path(), limit()) :: :ok | {:error, reason()}
  def rm(store, path, opts \\ []), do: run(store, {:rm, path}, opts)

  @doc "The names of the children of a node, however many there are."
  @spec directory(store(), path(), limit()) :: {:ok, [String.t()]} | {:error, reason()}
  def directory(store, path, opts \\ []), do: run(store, {:directory, path}, opts)

  @doc "Does one operation, given as data."
  @spec perform(store(), op(), limit()) :: :ok | {:ok, term()} | {:error, reason()}
  def perform(store, op, opts \\ []), do: run(store, op, opts)

  @doc """
  Does several operations in the given order, and sends each without waiting for the one before.
  Returns their results in that order. A failure does not stop the others.
  """
  @spec perform_all(store(), [op()], limit()) :: [:ok | {:ok, term()} | {:error, reason()}]
  def perform_all(store, ops, opts \\ [])

  def perform_all(%Transaction{client: client, ref: ref}, ops, opts),
    do: Client.run_all(client, ref, ops, timeout(opts))

  def perform_all(client, ops, opts) when is_pid(client),
    do: Client.run_all(client, nil, ops, timeout(opts))

  @doc """
  Does several operations atomically.

  With a list of operations it returns their results in order, `{:ok, [:ok | {:ok, value}]}`, or the
  first error, and then nothing has been done. A function gets a handle to use instead of the store,
  and returns `:ok` or `{:ok, value}` to commit, or `{:error, reason}` to abort.

  The store may refuse any commit with EAGAIN. Then everything is repeated after a short random
  pause, at most `:tries` times (#{@tries}); after that `{:error, :eagain}`. So a function may run
  several times. Whatever it does (raise, throw, exit, take too long), no transaction stays open.
  """
  @spec transaction(pid(), [op()], keyword()) :: {:ok, [:ok | {:ok, term()}]} | {:error, reason()}
  @spec transaction(pid(), (Transaction.t() -> result), keyword()) ::
          result | {:error, reason()}
        when result: :ok | {:ok, term()} | {:error, term()}
  def transaction(store, ops_or_fun, opts \\ [])

  def transaction(store, ops, opts) when is_pid(store) and is_list(ops) do
    {tries, timeout} = limits(opts)
    Client.run(store, nil, {:transaction, ops}, tries, timeout)
  end

  def transaction(store, fun, opts) when is_pid(store) and is_function(fun, 1) do
    {tries, timeout} = limits(opts)
    Transaction.run(store, fun, tries, timeout)
  end

  @doc "Does a transaction whose steps may depend on what they read, see `Tube.Xenstore.Batch`."
  @spec batch(pid(), [Batch.step()], keyword()) :: {:ok, [Batch.result()]} | {:error, term()}
  def batch(store, steps, opts \\ []),
    do: transaction(store, fn tx -> Batch.run(steps, &perform_all(tx, &1)) end, opts)

  @doc """
  Starts an operation without waiting. The calling process gets exactly one `{:xenstore, ref,
  result}` within the time limit, with the result that the function of that name would return.

  Besides those of `t:op/0` there are `{:watch, path, interest, token}` and `{:unwatch, token}`.
  """
  @spec request(
          pid(),
          ref :: term(),
          op() | {:watch, path(), path(), term()} | {:unwatch, term()},
          keyword()
        ) :: :ok
  def request(store, ref, op, opts \\ []) when is_pid(store) do
    {tries, timeout} = limits(opts)
    Client.request(store, ref, op, tries, timeout)
  end

  @doc """
  Subscribes the calling process to changes at, below or above `interest`, as the store reports
  them for `path`. See above for the messages.

  Watches are scarce, and subscriptions to one `path` share one: let `path` be what several
  subscriptions have in common, and `interest` what this one needs. They must be equal or one above
  the other. The first event comes without a change. `:eexist`: the process already has a
  subscription with that token.
  """
  @spec watch(pid(), path(), path(), token :: term(), limit()) :: :ok | {:error, reason()}
  def watch(store, path, interest, token, opts \\ []) when is_pid(store),
    do: Client.watch(store, path, interest, token, timeout(opts))

  @doc "Ends a subscription of the calling process."
  @spec unwatch(pid(), token :: term(), limit()) :: :ok | {:error, reason()}
  def unwatch(store, token, opts \\ []) when is_pid(store),
    do: Client.unwatch(store, token, timeout(opts))

  @doc "Acknowledges the event of `token`. Do this, then read."
  @spec ack(pid(), token :: term()) :: :ok
  def ack(store, token) when is_pid(store), do: Client.acknowledge(store, token)

  defp run(%Transaction{client: client, ref: ref}, op, opts),
    do: Client.run(client, ref, op, 1, timeout(opts))

  defp run(client, op, opts) when is_pid(client),
    do: Client.run(client, nil, op, 1, timeout(opts))

  defp limits(opts) do
    {tries, opts} = Keyword.pop(opts, :tries, @tries)

    unless is_integer(tries) and tries > 0,
      do: raise(ArgumentError, ":tries must be a positive integer, got: #{inspect(tries)}")

    {tries, timeout(opts)}
  end

  defp timeout([]), do: @timeout
  defp timeout(timeout: timeout) when is_integer(timeout) and timeout >= 0, do: timeout

  defp timeout(opts) do
    raise ArgumentError,
          "expected timeout: milliseconds (an integer, 0 or more), got: #{inspect(opts)}"
  end
end
