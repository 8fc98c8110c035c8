defmodule :telemetry do
  @moduledoc """
  The part of the library of this name that tests of `Tube.Telemetry` need. Like the original it
  runs handlers in the process that executes the event, and the first attachment loads it.
  """

  @handlers {__MODULE__, :handlers}

  @doc "Calls `function.(event, measurements, metadata, config)` for each of `events`."
  @spec attach_many(term, [[atom]], (... -> term), term) :: :ok | {:error, :already_exists}
  def attach_many(id, events, function, config) do
    case handlers() do
      %{^id => _} ->
        {:error, :already_exists}

      handlers ->
        :persistent_term.put(@handlers, Map.put(handlers, id, {events, function, config}))
    end
  end

  @spec detach(term) :: :ok | {:error, :not_found}
  def detach(id) do
    case Map.pop(handlers(), id) do
      {nil, _handlers} -> {:error, :not_found}
      {_handler, handlers} -> :persistent_term.put(@handlers, handlers)
    end
  end

  @spec execute([atom], map, map) :: :ok
  def execute(event, measurements, metadata) do
    for {_id, {events, function, config}} <- handlers(),
        event in events,
        do: function.(event, measurements, metadata, config)

    :ok
  end

  defp handlers, do: :persistent_term.get(@handlers, %{})
end
