defmodule Tube.Xenstore.Transaction do
  @moduledoc false
  # A transaction run by a function, in the process of the caller.
  #
  # The handle is not the store's transaction id but a reference that the client knows while the
  # transaction is open: a handle used too late cannot reach another transaction with the same
  # number. The client monitors the process that runs the function, and keeps its time limit, so
  # that no transaction stays open.

  alias Tube.Xenstore.{Client, Operation}

  @enforce_keys [:client, :ref]
  defstruct [:client, :ref]

  @type t :: %__MODULE__{client: pid(), ref: reference()}

  @doc """
  Runs `fun` in a transaction, and again when the store replies EAGAIN, at most `tries` times.

  `fun` gets the handle and returns `:ok` or `{:ok, value}` to commit, `{:error, reason}` to abort.
  It may run several times, so it should only use the store.
  """
  @spec run(pid(), (t() -> result), tries :: pos_integer(), timeout :: non_neg_integer()) ::
          result
        when result: :ok | {:ok, term()} | {:error, term()}
  def run(client, fun, tries, timeout) do
    run(client, fun, 1, tries, System.monotonic_time(:millisecond) + timeout)
  end

  defp run(client, fun, nth, tries, deadline) do
    case attempt(client, fun, max(deadline - System.monotonic_time(:millisecond), 0)) do
      {:error, :eagain} when nth < tries ->
        Process.sleep(Operation.pause(nth))
        run(client, fun, nth + 1, tries, deadline)

      # The client ended it when its time was over, so its next operation failed.
      {:error, :closed} ->
        {:error, :timeout}

      result ->
        result
    end
  end

  defp attempt(client, fun, timeout) do
    with {:ok, ref} <- Client.begin(client, timeout) do
      tx = %__MODULE__{client: client, ref: ref}

      try do
        fun.(tx)
      catch
        kind, reason ->
          Client.finish(client, ref, false, timeout)
          :erlang.raise(kind, reason, __STACKTRACE__)
      else
        result -> finish(tx, result, timeout)
      end
    end
  end

  defp finish(tx, result, timeout)
       when result == :ok or
              (is_tuple(result) and elem(result, 0) == :ok and tuple_size(result) == 2) do
    with :ok <- Client.finish(tx.client, tx.ref, true, timeout), do: result
  end

  defp finish(tx, {:error, _reason} = error, timeout) do
    Client.finish(tx.client, tx.ref, false, timeout)
    error
  end

  defp finish(tx, other, timeout) do
    Client.finish(tx.client, tx.ref, false, timeout)

    raise ArgumentError,
          "the function of a transaction must return :ok, {:ok, value} or {:error, reason}, got: #{inspect(other)}"
  end
end
