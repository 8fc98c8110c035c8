defmodule Tube.Xenstore do
  @moduledoc false
  # The store, as the rest of the library uses it. `store` is the pid of a connection
  # (`Tube.Domain.store/0`) or, inside of `transaction/3`, the handle that its function gets.
  #
  # Every function waits no longer than its option `:timeout` (milliseconds, 5,000 unless told) and
  # returns `:ok`, `{:ok, value}` or `{:error, reason}`. Reasons:
  #
  #   * the store's own, as an atom: :enoent, :eacces, :eagain, :enospc, ...; a name that is not
  #     known comes as {:xenstore, "ENAME"}
  #   * :einval also for arguments that no store would take, :e2big for a request that is too
  #     long; nothing was sent then
  #   * :timeout: no answer in time. What was asked for may have been done all the same
  #   * :store_lost: the connection has ended
  #   * :protocol: the answer made no sense
  #   * :closed: the transaction has ended already
  #
  # ## Watches
  #
  # A subscriber gets {:xenstore_watch, token, changed_path}, says `ack/2`, then looks at the store:
  # in that order, or it may miss what happens between the look and the ack. Until it does so there
  # is no further message for that token: changes meanwhile are merged and come afterwards. So a
  # mailbox holds one event per subscription, however much happens in the store. The path may be
  # above what really changed (one domain changed very much), and an event may be about nothing at
  # all: always look again.
  #
  # After unwatch/2 has returned one last event may still be in the mailbox: choose a new token when
  # watching again.

  alias Tube.Xenstore.{Client, Operation, Perms, Transaction}

  @type store :: pid() | Transaction.t()
  @type path :: String.t()
  @type perms :: Perms.t()
  @type reason :: Client.reason()
  @type op :: Operation.op()
  @type limit :: [timeout: non_neg_integer()]

  @timeout 5_000
  @tries 20

  @doc "The value of a node."
  @spec read(store(), path(), limit()) :: {:ok, binary()} | {:error, reason()}
  def read(store, path, opts \\ []), do: run(store, {:read, path}, opts)

  @doc "Sets the value of a node; makes it, and those above it, if there is none."
  @spec write(store(), path(), iodata(), limit()) :: :ok | {:error, reason()}
  def write(store, path, value, opts \\ []), do: run(store, {:write, path, value}, opts)

  @doc "Makes an empty node, and those above it. One that is there is left as it is."
  @spec mkdir(store(), path(), limit()) :: :ok | {:error, reason()}
  def mkdir(store, path, opts \\ []), do: run(store, {:mkdir, path}, opts)

  @doc "Removes a node and all below it. No error if only the node itself is not there."
  @spec rm(store(), path(), limit()) :: :ok | {:error, reason()}
  def rm(store, path, opts \\ []), do: run(store, {:rm, path}, opts)

  @doc "The names of the nodes below a node, however many there are."
  @spec directory(store(), path(), limit()) :: {:ok, [String.t()]} | {:error, reason()}
  def directory(store, path, opts \\ []), do: run(store, {:directory, path}, opts)

  @doc "Who may do what with a node; the first entry is its owner."
  @spec get_perms(store(), path(), limit()) :: {:ok, perms()} | {:error, reason()}
  def get_perms(store, path, opts \\ []), do: run(store, {:get_perms, path}, opts)

  @doc "Sets who may do what."
  @spec set_perms(store(), path(), perms(), limit()) :: :ok | {:error, reason()}
  def set_perms(store, path, perms, opts \\ []), do: run(store, {:set_perms, path, perms}, opts)

  @doc "The directory of a domain."
  @spec domain_path(store(), Tube.Paths.domid(), limit()) :: {:ok, path()} | {:error, reason()}
  def domain_path(store, domid, opts \\ []), do: run(store, {:domain_path, domid}, opts)

  @doc "Does one operation that is given as data."
  @spec perform(store(), op(), limit()) :: :ok | {:ok, term()} | {:error, reason()}
  def perform(store, op, opts \\ []), do: run(store, op, opts)

  @doc """
  Does several operations in the order given, without waiting for one before the next is sent; their
  results in that order. All are done, whatever comes of others.
  """
  @spec perform_all(store(), [op()], limit()) :: [:ok | {:ok, term()} | {:error, reason()}]
  def perform_all(store, ops, opts \\ [])

  def perform_all(%Transaction{client: client, ref: ref}, ops, opts),
    do: Client.run_all(client, ref, ops, timeout(opts))

  def perform_all(client, ops, opts) when is_pid(client),
    do: Client.run_all(client, nil, ops, timeout(opts))

  @doc """
  Does several things as one: all or none, and nobody sees half of it.

  With a list of operations: their results in order, `{:ok, [:ok | {:ok, value}]}`, or the first
  error, and then nothing has been done. With a function: it gets a handle to use in place of the
  store, and returns `:ok` or `{:ok, value}`, or `{:error, reason}` to undo.

  The store may refuse any commit with EAGAIN; then all of it is done again after a short random
  pause, `:tries` times at most (#{@tries}), then `{:error, :eagain}`. A function may so be run
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

  @doc """
  Asks for something without waiting. The calling process gets `{:xenstore, ref, result}` in any
  case, in time, with the result that the function of that name would have returned.

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
  them for `path`. See above for what it gets and what it has to say.

  Watches are scarce; subscriptions to one `path` share one, so let `path` be what several have in
  common and `interest` what this one is about. They must be equal or one above the other.
  The first event comes without a change. `:eexist`: the process has a subscription of that token.
  """
  @spec watch(pid(), path(), path(), token :: term(), limit()) :: :ok | {:error, reason()}
  def watch(store, path, interest, token, opts \\ []) when is_pid(store),
    do: Client.watch(store, path, interest, token, timeout(opts))

  @doc "Ends a subscription of the calling process."
  @spec unwatch(pid(), token :: term(), limit()) :: :ok | {:error, reason()}
  def unwatch(store, token, opts \\ []) when is_pid(store),
    do: Client.unwatch(store, token, timeout(opts))

  @doc "Says that the event of `token` has been taken. Say it, then look."
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
