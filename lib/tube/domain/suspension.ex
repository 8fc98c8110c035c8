defmodule Tube.Domain.Suspension do
  @moduledoc false
  # Prepares for a suspension or migration of the machine, and resumes after it: `Tube.suspend/1`
  # and `Tube.resume/0`.
  #
  # First calls for the domain fail, then services are withdrawn, then tubes are closed, and then
  # the domain is detached.

  alias Tube.{Connection, Domain}
  alias Tube.Listener.Dispatcher

  require Logger

  @doc "Closes everything; tubes within `ms`."
  @spec suspend(non_neg_integer) :: :ok
  def suspend(ms) do
    :ok = Domain.hold()
    :ok = Dispatcher.withdraw()
    close(System.monotonic_time(:millisecond) + ms, MapSet.new())
    Domain.leave()
  end

  @doc "Attaches the domain again and publishes its services."
  @spec resume() :: :ok | {:error, Tube.Error.reason()}
  def resume do
    with :ok <- Domain.resume(), do: Dispatcher.announce()
  end

  # Repeats until every tube has been closed: one may have started just before the hold. Processes
  # that are still alive then serve an owner that has not taken all of its data.
  defp close(deadline, done) do
    pids = for {_, pid, _, _} when is_pid(pid) <- children(), pid not in done, do: pid

    if pids != [] do
      left = max(0, deadline - System.monotonic_time(:millisecond))

      cut =
        pids
        |> Task.async_stream(&Connection.suspend(&1, left),
          max_concurrency: length(pids),
          timeout: :infinity
        )
        |> Enum.count(&(&1 == {:ok, false}))

      if cut > 0,
        do: Logger.warning("tube: #{cut} tubes did not close in time and were cut short")

      close(deadline, MapSet.union(done, MapSet.new(pids)))
    end
  end

  defp children, do: DynamicSupervisor.which_children(Tube.Connections)
end
