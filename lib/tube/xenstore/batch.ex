defmodule Tube.Xenstore.Batch do
  @moduledoc false
  # The body of a transaction, in as few exchanges with the store as its decisions allow.
  #
  # The words of `Tube.Handshake` that decide something ask first: whether a directory is there, whether
  # one is empty. What can be asked or done before such an answer goes with the question, in one list.
  # Within a transaction that is free: what turns out not to be wanted is undone by its abort.
  #
  # Results are those of carrying out one request after the other.

  alias Tube.Handshake

  # A step on its way: its requests, and what their results mean. `ask` is the word of a question whose
  # answer may call for more, and the path that it is about.
  defstruct [:requests, :then, :ask]

  @type call :: ([Handshake.plain(), ...] -> [Handshake.result(), ...])

  @spec run([Handshake.in_transaction()], call) ::
          {:ok, [Handshake.result()]} | {:error, term}
  def run(requests, call), do: exchange([], Enum.map(requests, &first/1), [], call)

  # `open` are steps that go on, each with its place among all, `done` what has come of others, by place.
  defp exchange([], [], done, _call),
    do: {:ok, done |> Enum.sort() |> Enum.map(fn {_place, result} -> result end)}

  defp exchange(open, todo, done, call) do
    {next, todo} = together(todo, [])
    place = length(open) + length(done)
    steps = open ++ Enum.with_index(next, &{&2 + place, &1})
    results = steps |> Enum.flat_map(fn {_place, step} -> step.requests end) |> call.()

    with {:ok, open, done} <- conclude(steps, results, [], done),
         do: exchange(open, todo, done, call)
  end

  # In their order: the first that aborts says why.
  defp conclude([], [], open, done), do: {:ok, Enum.reverse(open), done}

  defp conclude([{place, step} | steps], results, open, done) do
    {own, others} = Enum.split(results, length(step.requests))

    case step.then.(own) do
      {:abort, reason} -> {:error, reason}
      {:done, result} -> conclude(steps, others, open, [{place, result} | done])
      %__MODULE__{} = more -> conclude(steps, others, [{place, more} | open], done)
    end
  end

  # As many steps as need not know what comes of each other.
  defp together([step | todo], taken) do
    if Enum.all?(taken, &free?(step, &1)),
      do: together(todo, [step | taken]),
      else: {Enum.reverse(taken), [step | todo]}
  end

  defp together([], taken), do: {Enum.reverse(taken), []}

  defp free?(_step, %{ask: nil}), do: true

  # Whether it is there, with these permissions, is the same before and after another one is made.
  defp free?(%{ask: {:ensure, path}}, %{ask: {:ensure, other}}), do: path != other
  # But whether it is empty is not the same before and after one below it is removed.
  defp free?(%{ask: {:prune, path}}, %{ask: {:prune, below}}),
    do: not String.starts_with?(below, path <> "/")

  defp free?(_step, _question), do: false

  ## Words

  defp first({:guard, path, values}) do
    step([{:read, path}], fn [answer] ->
      case value(answer) do
        {:error, reason} -> {:abort, reason}
        value -> if value in values, do: {:done, :ok}, else: {:abort, :guard}
      end
    end)
  end

  defp first({:ensure, path, perms}) do
    ask({:ensure, path}, {:get_perms, path}, fn
      [{:ok, ^perms}] -> {:done, :ok}
      [{:ok, _other}] -> step([{:set_perms, path, perms}], fn [set] -> tightened(set) end)
      [{:error, :enoent}] -> make(path, perms)
      [{:error, reason}] -> {:abort, reason}
    end)
  end

  defp first({:prune, path}), do: first({:prune, path, []})

  defp first({:prune, path, but}) do
    ask({:prune, path}, {:directory, path}, fn [answer] ->
      with {:ok, names} <- answer, [] <- names -- but do
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

  defp make(path, perms) do
    step([{:mkdir, path}, {:set_perms, path, perms}], fn
      [:ok, set] -> tightened(set)
      [{:error, reason}, _set] -> {:abort, reason}
    end)
  end

  # Under oxenstored a new node belongs to the owner of its parent, who may be somebody else.
  defp tightened({:error, reason}) when reason in [:eacces, :eperm], do: {:done, :ok}
  defp tightened({:error, reason}), do: {:abort, reason}
  defp tightened(:ok), do: {:done, :ok}

  # xenstore says EACCES of a node that is not there when what is above it may not be read.
  defp value({:ok, value}), do: value
  defp value({:error, reason}) when reason in [:enoent, :eacces], do: nil
  defp value({:error, reason}), do: {:error, reason}

  defp step(requests, then), do: %__MODULE__{requests: requests, then: then}
  defp ask(what, request, then), do: %__MODULE__{requests: [request], then: then, ask: what}
end
