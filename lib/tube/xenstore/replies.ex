defmodule Tube.Xenstore.Replies do
  @moduledoc false
  # Delivers results to callers, and gathers the results of several operations for one caller.

  @typedoc "Where a result goes: to a call, a message, a transaction's process, or a group."
  @type caller ::
          {:call, GenServer.from()}
          | {:message, pid(), ref :: term()}
          | {:begin, GenServer.from(), timeout :: non_neg_integer()}
          | {:one_of, group :: reference(), place :: non_neg_integer()}

  @typedoc "Groups that still lack results."
  @opaque groups :: %{
            reference() => %{
              from: GenServer.from(),
              results: [{non_neg_integer(), term()}],
              missing: pos_integer()
            }
          }

  @doc "Sends a result to a caller that is not part of a group."
  @spec send(caller(), term()) :: term()
  def send({:call, from}, result), do: GenServer.reply(from, result)
  def send({:begin, from, _timeout}, result), do: GenServer.reply(from, result)
  def send({:message, pid, ref}, result), do: Kernel.send(pid, {:xenstore, ref, result})

  @spec new() :: groups()
  def new, do: %{}

  @doc "Adds a group of `size` operations, whose results `from` gets as one list."
  @spec add_group(groups(), GenServer.from(), size :: pos_integer()) :: {reference(), groups()}
  def add_group(groups, from, size) do
    group = make_ref()
    {group, Map.put(groups, group, %{from: from, results: [], missing: size})}
  end

  @doc "Adds the result of one operation of a group. The last one replies to the caller."
  @spec add_result(groups(), reference(), non_neg_integer(), term()) :: groups()
  def add_result(groups, group, place, result) do
    case Map.fetch!(groups, group) do
      %{missing: 1} = last ->
        results = Enum.sort([{place, result} | last.results])
        GenServer.reply(last.from, Enum.map(results, fn {_place, result} -> result end))
        Map.delete(groups, group)

      %{missing: missing, results: results} = some ->
        %{groups | group => %{some | missing: missing - 1, results: [{place, result} | results]}}
    end
  end
end
