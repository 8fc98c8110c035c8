defmodule Tube.Handshake.Explorer do
  @moduledoc false
  # Walks all states that can be reached from one, each once, depth first.
  #
  # It finds: a stable state (nothing is under way, only choices are left) that violates an
  # invariant; a store that exposes too much; a machine that raises; and a run that returns to an
  # earlier state, since it might never end. If it finds nothing, every run ends, whatever the order
  # of its steps.

  alias Tube.Handshake.{Invariants, Model}

  @doc "`{:ok, number of states}`, or `{:wrong, text, run that leads there}`."
  def explore(options) do
    seen = :ets.new(:seen, [:set, :private])

    try do
      visit(Model.new(options), seen, [])
      {:ok, :ets.select_count(seen, [{{:_, :left}, [], [true]}])}
    catch
      {:wrong, text, run} -> {:wrong, text, Enum.reverse(run)}
    after
      :ets.delete(seen)
    end
  end

  @doc "One random run: `{:ok, number of steps}`, or `{:wrong, text, run}`."
  def stroll(options) do
    stroll(Model.new(options), [], 0)
  catch
    {:wrong, text, run} -> {:wrong, text, Enum.reverse(run)}
  end

  # More than any run needs.
  @most 2_000

  defp stroll(_w, run, @most), do: throw({:wrong, "may go on for ever", run})

  defp stroll(w, run, n) do
    if text = Invariants.exposed(w.store), do: throw({:wrong, text, run})
    {progress, choices} = steps(w, run)
    text = progress == [] && Invariants.violation(w)
    if text, do: throw({:wrong, text, run})

    case choose(progress, choices) do
      nil -> {:ok, n}
      {label, next} -> stroll(next, [label | run], n + 1)
    end
  end

  # Choices and time-outs are rare, or no run would get far.
  defp choose([], []), do: nil
  defp choose([], choices), do: Enum.random([nil | choices])

  defp choose(progress, choices) do
    {timeouts, others} = Enum.split_with(progress, &match?({{_name, :timeout, _timer}, _w}, &1))

    cond do
      choices != [] and :rand.uniform(12) == 1 -> Enum.random(choices)
      others == [] or (timeouts != [] and :rand.uniform(12) == 1) -> Enum.random(timeouts)
      true -> Enum.random(others)
    end
  end

  defp visit(w, seen, run) do
    key = Invariants.key(w)

    case :ets.lookup(seen, key) do
      [{_, :left}] -> :ok
      [{_, :entered}] -> throw({:wrong, "may go on for ever", run})
      [] -> enter(w, key, seen, run)
    end
  end

  defp enter(w, key, seen, run) do
    :ets.insert(seen, {key, :entered})
    if text = exposed(w.store, seen), do: throw({:wrong, text, run})
    {progress, choices} = steps(w, run)
    text = progress == [] && Invariants.violation(w)
    if text, do: throw({:wrong, text, run})

    for {label, next} <- progress ++ choices, do: visit(next, seen, [label | run])
    :ets.insert(seen, {key, :left})
  end

  # Many states share a store.
  defp exposed(store, seen) do
    key = {:store, :erlang.phash2(store, 4_294_967_296)}
    if :ets.insert_new(seen, {key, store}), do: Invariants.exposed(store)
  end

  defp steps(w, run) do
    Model.steps(w)
  rescue
    error -> throw({:wrong, Exception.format(:error, error, __STACKTRACE__), run})
  end
end
