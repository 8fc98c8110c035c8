defmodule Tube.Application do
  @moduledoc false
  # The application's callback module. Starts `Tube.Supervisor`, or watches over it when
  # distribution has already started it.

  use Application

  @impl true
  def start(_type, _args) do
    case Tube.Supervisor.start_link() do
      {:error, {:already_started, _supervisor}} ->
        watch = %{id: Tube.Supervisor, start: {Tube.Supervisor, :watch, []}}
        Supervisor.start_link([watch], strategy: :one_for_one)

      started ->
        started
    end
  end
end
