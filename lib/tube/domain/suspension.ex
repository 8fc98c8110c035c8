defmodule Tube.Domain.Suspension do
  @moduledoc false
  # What comes before and after a suspension or migration of the machine: `Tube.suspend/1`, `Tube.resume/0`.
  #
  # Nobody gets the domain any more, then the doors close, then the tubes, and then the domain is left.

  alias Tube.{Connection, Domain}
  alias Tube.Listener.Dispatcher

  require Logger

  @doc "Closes everything, tubes within `ms`."
  @spec suspend(non_neg_integer) :: :ok
  def suspend(ms) do
    :ok = Domain.hold()
    :ok = Dispatcher.withdraw()
    close(System.monotonic_time(:millisecond) + ms, MapSet.new())
    Domain.leave()
  end

  @doc "Opens it again."
  @spec resume() :: :ok | {:error, Tube.Error.reason()}
  def resume do
    with :ok <- Domain.resume(), do: Dispatcher.announce()
  end

  # Again, until there is none that has not been told: one may just have begun when nobody was let in
  # any more. Those that are still there have an owner who has not taken all that had arrived.
  defp close(deadline, told) do
    pids = for {_, pid, _, _} when is_pid(pid) <- children(), pid not in told, do: pid

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
        do: Logger.warning("tube: #{cut} tubes did not close in time, and were cut short")

      close(deadline, MapSet.union(told, MapSet.new(pids)))
    end
  end

  defp children, do: DynamicSupervisor.which_children(Tube.Connections)
end
