defmodule Tube.Xenstore.Operation do
  @moduledoc false
  # A caller's operation as a sequence of requests. It is pure, so the client can carry out any
  # number of them at once, also for processes that must not wait.
  #
  # Most operations are one request. A directory too large for one reply is fetched in parts. A
  # transaction is a START, its operations and an END, and all of that again when the store replies
  # EAGAIN, which it may do at any commit, whether or not there was a real conflict.

  alias Tube.Xenstore.Wire.{Reason, Request}

  defstruct [:op, :tx, :stage, tries: 1]

  @typedoc "The operations. Those of a transaction are done in order, all or none."
  @type op :: Request.t() | {:transaction, [Request.t()]}

  @opaque t :: %__MODULE__{}

  @type reason :: Reason.t() | :protocol
  @type result :: :ok | {:ok, term()} | {:error, reason()}

  @typedoc "The next step: send a request and pass in its reply, sleep, or finish."
  @type step ::
          {:send, Request.t(), tx_id :: non_neg_integer(), t()}
          | {:sleep, milliseconds :: pos_integer(), t()}
          | {:done, result()}

  # Give up on a directory that changes faster than we can read it after so many restarts, and on
  # one without an end after so many bytes. A real one holds at most some thousand names.
  @directory_restarts 10
  @directory_bytes 0x100000

  @plain [:read, :write, :mkdir, :rm, :directory, :get_perms, :set_perms]

  @doc "Begins an operation in the transaction `tx` (0: none), with `tries` for a transaction."
  @spec start(term(), non_neg_integer(), pos_integer()) :: step()
  def start(op, tx, tries \\ 1)

  def start({:transaction, ops}, 0, tries) when is_list(ops) do
    # All are checked first: half of a transaction is useless.
    if Enum.all?(ops, &plain?/1),
      do: begin(%__MODULE__{op: ops, tries: tries}, tries),
      else: {:done, {:error, :einval}}
  end

  def start(op, tx, _tries) do
    if plain?(op), do: request(op, tx), else: {:done, {:error, :einval}}
  end

  @doc "Begins an operation of exactly one request, such as the START or END of a transaction."
  @spec request(Request.t(), non_neg_integer()) :: step()
  def request(request, tx),
    do: {:send, request, tx, %__MODULE__{op: request, tx: tx, stage: :single}}

  @doc "Continues after a `:sleep`."
  @spec wake(t()) :: step()
  def wake(%__MODULE__{stage: {:asleep, tries}} = operation), do: begin(operation, tries)

  @doc "Continues with the reply to the request."
  @spec reply(t(), {:ok, binary()} | {:error, Reason.t()}) :: step()
  def reply(operation, reply)

  def reply(%{stage: :single, op: {:directory, _path}} = operation, {:error, :e2big}),
    do: part(operation, nil, <<>>, @directory_restarts)

  def reply(%{stage: :single, op: op}, reply), do: {:done, decode(op, reply)}

  def reply(%{stage: {:part, generation, so_far, restarts}} = operation, reply) do
    request = {:directory_part, elem(operation.op, 1), byte_size(so_far)}

    case decode(request, reply) do
      {:ok, {new, part}} when generation in [nil, new] ->
        part(operation, new, so_far, part, restarts)

      {:ok, _changed_meanwhile} when restarts > 0 ->
        part(operation, nil, <<>>, restarts - 1)

      {:ok, _changed_again} ->
        {:done, {:error, :eagain}}

      error ->
        {:done, error}
    end
  end

  def reply(%{stage: {:starting, tries}} = operation, reply) do
    case decode(:transaction_start, reply) do
      {:ok, id} -> next(%{operation | tx: id}, operation.op, [], tries)
      error -> {:done, error}
    end
  end

  def reply(%{stage: {:running, inner, todo, results, tries}} = operation, reply) do
    inner |> reply(reply) |> inner(operation, todo, results, tries)
  end

  def reply(%{stage: {:ending, result, tries}} = operation, reply) do
    case {result, decode({:transaction_end, true}, reply)} do
      {{:ok, _results}, :ok} -> {:done, result}
      {{:ok, _results}, {:error, :eagain}} -> retry(operation, tries)
      {{:ok, _results}, error} -> {:done, error}
      # The END was an abort, so its reply does not matter.
      {{:error, :eagain}, _any} -> retry(operation, tries)
      {error, _any} -> {:done, error}
    end
  end

  @doc """
  The transaction that must be ended if the operation is given up now.

  None while a START is under way: the caller then has to end the transaction of its late reply.
  """
  @spec left_open(t()) :: nil | pos_integer()
  def left_open(%{stage: {:running, _, _, _, _}, tx: tx}), do: tx
  def left_open(_operation), do: nil

  @doc "How long to wait after the `nth` failed try: random, up to a limit that doubles."
  @spec pause(pos_integer()) :: pos_integer()
  def pause(nth), do: :rand.uniform(min(Integer.pow(2, nth), 64))

  defp plain?(op) when is_tuple(op) and tuple_size(op) > 0,
    do: elem(op, 0) in @plain and match?({:ok, _type, _payload}, Request.encode(op))

  defp plain?(_op), do: false

  defp begin(operation, tries),
    do: {:send, :transaction_start, 0, %{operation | stage: {:starting, tries}}}

  # The next operation of a transaction, or its commit.
  defp next(operation, [], results, tries),
    do: finish(operation, {:ok, Enum.reverse(results)}, tries)

  defp next(operation, [op | todo], results, tries),
    do: op |> start(operation.tx) |> inner(operation, todo, results, tries)

  defp inner({:send, request, tx, inner}, operation, todo, results, tries),
    do: {:send, request, tx, %{operation | stage: {:running, inner, todo, results, tries}}}

  defp inner({:done, {:error, _} = error}, operation, _todo, _results, tries),
    do: finish(operation, error, tries)

  defp inner({:done, result}, operation, todo, results, tries),
    do: next(operation, todo, [result | results], tries)

  defp finish(operation, result, tries) do
    commit? = match?({:ok, _results}, result)

    {:send, {:transaction_end, commit?}, operation.tx,
     %{operation | stage: {:ending, result, tries}}}
  end

  defp retry(_operation, 1), do: {:done, {:error, :eagain}}

  defp retry(operation, tries) do
    {:sleep, pause(operation.tries - tries + 1), %{operation | stage: {:asleep, tries - 1}}}
  end

  # Requests the names from byte `so_far` on.
  defp part(operation, generation, so_far, restarts) do
    {:send, {:directory_part, elem(operation.op, 1), byte_size(so_far)}, operation.tx,
     %{operation | stage: {:part, generation, so_far, restarts}}}
  end

  # An empty name, one more NUL, ends the last part.
  defp part(operation, generation, so_far, part, restarts) do
    names = so_far <> part

    cond do
      names == <<0>> or String.ends_with?(names, <<0, 0>>) ->
        {:done, names |> binary_part(0, byte_size(names) - 1) |> Request.names()}

      part == <<>> ->
        {:done, {:error, :protocol}}

      byte_size(names) > @directory_bytes ->
        {:done, {:error, :e2big}}

      true ->
        part(operation, generation, names, restarts)
    end
  end

  defp decode(request, {:ok, payload}), do: Request.decode(request, payload)
  defp decode(_request, {:error, _} = error), do: error
end
