defmodule Tube.Logger do
  @moduledoc """
  Logs how tubes open and end. By default this library logs nothing.

      :ok = Tube.Logger.attach(:info)

  attaches a handler to the events of `Tube.Telemetry`, so it needs the module `:telemetry`. Each
  level includes those above it:

    * `:error` - failed handshakes and lost peers
    * `:info` - tubes that opened or ended, with how much they carried
    * `:debug` - handshakes that begin, and full rings

  Each event is logged at the level that lists it. `Logger` metadata: `:tube` (such as `7:0 -> 5`:
  nock, number, tip), `:peer_domid`, `:service`.
  """

  alias Tube.Label
  require Logger

  @handler __MODULE__

  @levels [
    error: [[:tube, :handshake, :exception], [:tube, :peer, :lost]],
    info: [[:tube, :handshake, :stop], [:tube, :connection, :stop]],
    debug: [[:tube, :handshake, :start], [:tube, :ring, :full]]
  ]

  @typedoc "Which events to log."
  @type level :: :error | :info | :debug

  @doc """
  Starts logging at `level`. To change the level, call `detach/0` first.

      :ok = Tube.Logger.attach(:debug)

  Errors: `:no_telemetry` (there is no module `:telemetry`), `:already_exists`. Any other level
  raises `ArgumentError`.
  """
  @spec attach(level) :: :ok | {:error, :no_telemetry | :already_exists}
  def attach(level \\ :info) do
    events = events!(level)

    if Code.ensure_loaded?(:telemetry) do
      handler = &__MODULE__.handle_event/4
      apply(:telemetry, :attach_many, [@handler, events, handler, nil])
    else
      {:error, :no_telemetry}
    end
  end

  @doc """
  Stops logging. Errors: `:no_telemetry`, `:not_found` (nothing was attached).

      :ok = Tube.Logger.detach()
  """
  @spec detach() :: :ok | {:error, :no_telemetry | :not_found}
  def detach do
    if Code.ensure_loaded?(:telemetry),
      do: apply(:telemetry, :detach, [@handler]),
      else: {:error, :no_telemetry}
  end

  defp events!(level) do
    case Enum.find_index(@levels, fn {known, _events} -> known == level end) do
      nil ->
        raise ArgumentError,
              "invalid level #{inspect(level)}: allowed is :error, :info or :debug"

      index ->
        @levels |> Enum.take(index + 1) |> Enum.flat_map(&elem(&1, 1))
    end
  end

  @doc false
  @spec handle_event([atom, ...], map, map, term) :: :ok
  def handle_event(event, measurements, metadata, _config) do
    name = Label.name(metadata)
    service = metadata.service

    text = fn ->
      ["Tube ", name, " ", inspect(service), " ", text(event, measurements, metadata)]
    end

    Logger.log(level(event), text, tube: name, peer_domid: metadata.peer, service: service)
  end

  for {level, events} <- @levels, event <- events do
    defp level(unquote(event)), do: unquote(level)
  end

  defp text([:tube, :handshake, :start], _, %{role: :nock}), do: "opening"
  defp text([:tube, :handshake, :start], _, %{role: :tip}), do: "incoming request"
  defp text([:tube, :handshake, :stop], m, _), do: "open after #{ms(m.duration)} ms"

  defp text([:tube, :handshake, :exception], m, metadata),
    do: "not opened: #{why(metadata)} (after #{ms(m.duration)} ms)"

  defp text([:tube, :peer, :lost], _, metadata), do: "lost its peer: #{why(metadata)}"

  defp text([:tube, :connection, :stop], m, metadata),
    do: "ended: #{why(metadata)}#{carried(m)}, after #{ms(m.duration)} ms"

  defp text([:tube, :ring, :full], m, _),
    do: "full: no room for a message of #{m.size} bytes"

  defp carried(%{send_cnt: sent, send_oct: out, recv_cnt: received, recv_oct: in_}),
    do: "; sent #{sent} messages (#{out} bytes), received #{received} (#{in_} bytes)"

  defp carried(_not_known), do: ""

  defp why(%{reason: :owner_down}), do: "its owner ended"
  defp why(%{reason: :closed}), do: "closed"
  defp why(%{reason: reason}), do: Tube.Error.message(reason)

  defp ms(native), do: System.convert_time_unit(native, :native, :millisecond)
end
