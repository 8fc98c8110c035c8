defmodule Tube.Xenstore.Operation do
  @moduledoc false
  # What a caller asks for, as a sequence of requests; pure, so that the client can carry out any
  # number of them at once and a process that must not wait can have them too.
  #
  # Most are one request. A directory too large for one reply is fetched in parts. A transaction
  # is a START, its operations, an END, and all of that again when the store answers EAGAIN: it
  # may do so at any commit, whether or not anybody really interfered.

  alias Tube.Xenstore.{Reason, Request}

  defstruct [:op, :tx, :stage, tries: 1]

  @typedoc "What may be asked for. Operations of a transaction are done in order, all or none."
  @type op :: Request.t() | {:transaction, [Request.t()]}

  @opaque t :: %__MODULE__{}

  @type reason :: Reason.t() | :protocol
  @type result :: :ok | {:ok, term()} | {:error, reason()}

  @typedoc "What to do next: send a request and hand in its reply, wait a while, or no more."
  @type step ::
          {:send, Request.t(), tx_id :: non_neg_integer(), t()}
          | {:sleep, milliseconds :: pos_integer(), t()}
          | {:done, result()}

  # A directory whose nodes come and go faster than we read it is given up after so many restarts;
  # so is one that has no end. A real one holds at most some thousand names.
  @directory_restarts 10
  @directory_bytes 0x100000

  @plain [:read, :write, :mkdir, :rm, :directory, :get_perms, :set_perms, :domain_path]

  @doc "Begins an operation in the transaction `tx` (0: in none), with `tries` for a transaction."
  @spec start(term(), non_neg_integer(), pos_integer()) :: step()
  def start(op, tx, tries \\ 1)

  def start({:transaction, ops}, 0, tries) when is_list(ops) do
    # All are checked first: half of a transaction is of no use to anybody.
    if Enum.all?(ops, &plain?/1),
      do: begin(%__MODULE__{op: ops, tries: tries}, tries),
      else: {:done, {:error, :einval}}
  end

  def start(op, tx, _tries) do
    if plain?(op), do: request(op, tx), else: {:done, {:error, :einval}}
  end

  @doc "Begins what is one request and nothing more, also the START and END of a transaction."
  @spec request(Request.t(), non_neg_integer()) :: step()
  def request(request, tx),
    do: {:send, request, tx, %__MODULE__{op: request, tx: tx, stage: :single}}

  @doc "Goes on after a `:sleep`."
  @spec wake(t()) :: step()
  def wake(%__MODULE__{stage: {:asleep, tries}} = operation), do: begin(operation, tries)

  @doc "Goes on with the reply to what was sent."
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
      {{:ok, _results}, {:error, :eagain}} -> again(operation, tries)
      {{:ok, _results}, error} -> {:done, error}
      # It was aborted, and that is all that the END was for.
      {{:error, :eagain}, _any} -> again(operation, tries)
      {error, _any} -> {:done, error}
    end
  end

  @doc """
  The transaction that is open and must be ended when the operation is given up at this point.

  None while a START is under way: who gives up then has to look at the late reply.
  """
  @spec left_open(t()) :: nil | pos_integer()
  def left_open(%{stage: {:running, _, _, _, _}, tx: tx}), do: tx
  def left_open(_operation), do: nil

  @doc "How long to wait after the `nth` failed try: up to a doubling limit, never in step with others."
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

  defp again(_operation, 1), do: {:done, {:error, :eagain}}

  defp again(operation, tries) do
    {:sleep, pause(operation.tries - tries + 1), %{operation | stage: {:asleep, tries - 1}}}
  end

  # Asks for the names from byte `so_far` on.
  defp part(operation, generation, so_far, restarts) do
    {:send, {:directory_part, elem(operation.op, 1), byte_size(so_far)}, operation.tx,
     %{operation | stage: {:part, generation, so_far, restarts}}}
  end

  # The last part is closed by an empty name, that is by one more NUL.
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
