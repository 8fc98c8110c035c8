defmodule Tube.Test.StoreCounts do
  @moduledoc """
  Counts what a connection to xenstore holds: requests, jobs, transactions, watches.
  """

  @doc "Counts of a `Tube.Xenstore.Client`. Also waits until it has handled earlier messages."
  @spec counts(pid()) :: %{atom() => non_neg_integer()}
  def counts(client) do
    %{session: session} = :sys.get_state(client)

    Map.merge(pipeline_counts(session.pipeline), %{
      jobs: map_size(session.jobs),
      groups: map_size(session.groups),
      transactions: map_size(session.transactions),
      watches: watch_count(session.watches),
      monitors: map_size(session.monitors)
    })
  end

  @doc "Counts of a `Tube.Xenstore.Pipeline`."
  @spec pipeline_counts(map()) :: %{atom() => non_neg_integer()}
  def pipeline_counts(pipeline) do
    queued = :queue.len(pipeline.queue) + :queue.len(pipeline.starts)
    %{in_flight: map_size(pipeline.in_flight), queued: queued, open: pipeline.open}
  end

  @doc "The number of watches in the store of a `Tube.Xenstore.Watches`."
  @spec watch_count(map()) :: non_neg_integer()
  def watch_count(watches), do: map_size(watches.shared)
end
