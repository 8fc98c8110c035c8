defmodule Tube.Application do
  @moduledoc false
  # Starts the processes of the library (`Tube.Supervisor`), or watches over those that distribution has
  # started before.

  use Application

  @impl true
  def start(_type, _args) do
    case Tube.Supervisor.start_link() do
      {:error, {:already_started, _tree}} ->
        watch = %{id: Tube.Supervisor, start: {Tube.Supervisor, :watch, [nil]}}
        Supervisor.start_link([watch], strategy: :one_for_one)

      started ->
        started
    end
  end
end
