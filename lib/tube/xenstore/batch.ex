defmodule Tube.Xenstore.Batch do
  @moduledoc false
  # The body of a transaction as data, run in as few exchanges with the store as its decisions
  # allow.
  #
  # Some steps decide something in the transaction, after they have read the store:
  #
  # - `{:guard, path, values}`: READ; continue only if the value is one of `values`, where `nil`
  #   stands for a node that is absent or unreadable. Otherwise abort: `{:error, :guard}`.
  # - `{:ensure, path, perms}`: make the directory exist with these permissions. Writes nothing if
  #   it already does: a write to a parent would fire the watches of all tubes below it.
  # - `{:try, request}`: an error of this request does not abort the transaction.
  # - `{:prune, path}`, `{:prune, path, except}`: RM the node if it has no children (other than
  #   those named in `except`). Never an error: an absent, occupied or forbidden node stays.
  #
  # Everything that does not depend on such a read is sent with it, in one list. That is free in a
  # transaction: its abort undoes what turns out to be unwanted. The results are the same as those
  # of one request after another.

  alias Tube.Paths
  alias Tube.Xenstore.Wire.Perms

  # A step in progress: its requests, and a function of their results. `reads` is set if the results
  # decide on more requests: the kind of the step and its path.
  defstruct [:requests, :then, :reads]

  @type plain ::
          {:read, Paths.t()}
          | {:write, Paths.t(), binary}
          | {:mkdir, Paths.t()}
          | {:rm, Paths.t()}
          | {:directory, Paths.t()}
          | {:get_perms, Paths.t()}
          | {:set_perms, Paths.t(), Perms.t()}

  @type step ::
          plain
          | {:try, plain}
          | {:guard, Paths.t(), [binary | nil, ...]}
          | {:ensure, Paths.t(), Perms.t()}
          | {:prune, Paths.t()}
          | {:prune, Paths.t(), except :: [String.t()]}

  @type request :: plain | {:transaction, [step]}

  @typedoc """
  READ returns `{:ok, value}`, DIRECTORY `{:ok, names}`, a transaction `{:ok, results}`, others
  `:ok`.
  """
  @type result :: :ok | {:ok, binary | [String.t()] | Perms.t() | [result]} | {:error, term}

  @typedoc "Carries out a list of requests in the transaction, in order, and returns their results."
  @type call :: ([plain, ...] -> [result, ...])

  @doc "Runs the body of a transaction. On `{:ok, results}` commit, on `{:error, reason}` abort."
  @spec run([step], call) :: {:ok, [result]} | {:error, term}
  def run(steps, call), do: exchange([], Enum.map(steps, &first/1), [], call)

  # `open` holds the steps that go on, `done` the results of the others; both with the step's place.
  defp exchange([], [], done, _call),
    do: {:ok, done |> Enum.sort() |> Enum.map(fn {_place, result} -> result end)}

  defp exchange(open, todo, done, call) do
    {next, todo} = take_independent(todo, [])
    place = length(open) + length(done)
    steps = open ++ Enum.with_index(next, &{&2 + place, &1})
    results = steps |> Enum.flat_map(fn {_place, step} -> step.requests end) |> call.()

    with {:ok, open, done} <- conclude(steps, results, [], done),
         do: exchange(open, todo, done, call)
  end

  # In order: the first step that aborts gives the reason.
  defp conclude([], [], open, done), do: {:ok, Enum.reverse(open), done}

  defp conclude([{place, step} | steps], results, open, done) do
    {own, others} = Enum.split(results, length(step.requests))

    case step.then.(own) do
      {:abort, reason} -> {:error, reason}
      {:done, result} -> conclude(steps, others, open, [{place, result} | done])
      %__MODULE__{} = more -> conclude(steps, others, [{place, more} | open], done)
    end
  end

  # As many steps as do not depend on each other's results.
  defp take_independent([step | todo], taken) do
    if Enum.all?(taken, &independent?(step, &1)),
      do: take_independent(todo, [step | taken]),
      else: {Enum.reverse(taken), [step | todo]}
  end

  defp take_independent([], taken), do: {Enum.reverse(taken), []}

  defp independent?(_step, %{reads: nil}), do: true

  # Creating one directory does not change whether another exists with its permissions.
  defp independent?(%{reads: {:ensure, path}}, %{reads: {:ensure, other}}), do: path != other
  # But removing one below it may change whether it is empty.
  defp independent?(%{reads: {:prune, path}}, %{reads: {:prune, below}}),
    do: not String.starts_with?(below, path <> "/")

  defp independent?(_step, _earlier), do: false

  ## Steps

  defp first({:guard, path, values}) do
    step([{:read, path}], fn [result] ->
      case value(result) do
        {:error, reason} -> {:abort, reason}
        value -> if value in values, do: {:done, :ok}, else: {:abort, :guard}
      end
    end)
  end

  defp first({:ensure, path, perms}) do
    reading({:ensure, path}, {:get_perms, path}, fn
      [{:ok, ^perms}] -> {:done, :ok}
      [{:ok, _other}] -> step([{:set_perms, path, perms}], fn [set] -> perms_set(set) end)
      [{:error, :enoent}] -> create(path, perms)
      [{:error, reason}] -> {:abort, reason}
    end)
  end

  defp first({:prune, path}), do: first({:prune, path, []})

  defp first({:prune, path, except}) do
    reading({:prune, path}, {:directory, path}, fn [result] ->
      with {:ok, names} <- result, [] <- names -- except do
        step([{:rm, path}], fn _any -> {:done, :ok} end)
      else
        _occupied_or_absent -> {:done, :ok}
      end
    end)
  end

  defp first({:try, request}), do: step([request], fn [result] -> {:done, result} end)

  defp first(request) do
    step([request], fn
      [{:error, reason}] -> {:abort, reason}
      [result] -> {:done, result}
    end)
  end

  defp create(path, perms) do
    step([{:mkdir, path}, {:set_perms, path, perms}], fn
      [:ok, set] -> perms_set(set)
      [{:error, reason}, _set] -> {:abort, reason}
    end)
  end

  # Under oxenstored a new node belongs to its parent's owner, which may be another domain.
  defp perms_set({:error, reason}) when reason in [:eacces, :eperm], do: {:done, :ok}
  defp perms_set({:error, reason}), do: {:abort, reason}
  defp perms_set(:ok), do: {:done, :ok}

  # xenstore replies EACCES for an absent node below a parent that may not be read.
  defp value({:ok, value}), do: value
  defp value({:error, reason}) when reason in [:enoent, :eacces], do: nil
  defp value({:error, reason}), do: {:error, reason}

  defp step(requests, then), do: %__MODULE__{requests: requests, then: then}
  defp reading(what, request, then), do: %__MODULE__{requests: [request], then: then, reads: what}
end
