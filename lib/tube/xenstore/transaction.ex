defmodule Tube.Xenstore.Transaction do
  @moduledoc false
  # A transaction whose steps are decided by a function, in the process that calls it.
  #
  # The handle is not the store's transaction id but a reference that the client knows for as long
  # as the transaction is open: a handle that is used too late cannot reach somebody else's
  # transaction that happens to have the same number. The client watches over the process that
  # runs the function, and over the time: whatever happens to either, nothing stays open.

  alias Tube.Xenstore.{Client, Operation}

  @enforce_keys [:client, :ref]
  defstruct [:client, :ref]

  @type t :: %__MODULE__{client: pid(), ref: reference()}

  @doc """
  Runs `fun` in a transaction, and again when the store says EAGAIN, at most `tries` times in all.

  `fun` gets the handle and returns `:ok` or `{:ok, value}` to commit, `{:error, reason}` to abort.
  It may be run several times, so it should do nothing but use the store.
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

      # The client has ended it when its time was over, which the next step was told in these words.
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
