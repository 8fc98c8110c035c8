defmodule Tube.Logger do
  @moduledoc """
  Logs the life of tubes, if asked to. This library itself logs nothing.

      :ok = Tube.Logger.attach(:info)

  listens to the events of `Tube.Telemetry`, so it needs the module `:telemetry`. Levels, each with
  all that is above it:

    * `:error` - handshakes that failed, peers that were lost
    * `:info` - tubes that were opened and have ended, with how much they carried
    * `:debug` - handshakes that begin, rings that are full

  An event is logged at the level by which it is listed here. `Logger` metadata: `:tube` (as
  `7:0 -> 5`: nock, number, tip), `:peer_domid`, `:service`.
  """

  require Logger

  @handler __MODULE__

  @levels [
    error: [[:tube, :handshake, :exception], [:tube, :peer, :lost]],
    info: [[:tube, :handshake, :stop], [:tube, :connection, :stop]],
    debug: [[:tube, :handshake, :start], [:tube, :ring, :full]]
  ]

  @typedoc "How much to log."
  @type level :: :error | :info | :debug

  @doc """
  Starts to log at `level`. At another level than before: `detach/0` first.

      :ok = Tube.Logger.attach(:debug)

  Errors: `:no_telemetry` (there is no module `:telemetry`), `:already_exists`. Another level than those
  above raises `ArgumentError`.
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
  Ends the logging. Errors: `:no_telemetry`, `:not_found` (nothing was attached).

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
    text = fn -> ["Tube ", name(metadata), " ", text(event, measurements, metadata)] end
    Logger.log(level(event), text, tags(metadata))
  end

  for {level, events} <- @levels, event <- events do
    defp level(unquote(event)), do: unquote(level)
  end

  defp text([:tube, :handshake, :start], _, %{role: :nock}), do: "is asked for"
  defp text([:tube, :handshake, :start], _, %{role: :tip}), do: "was knocked for"
  defp text([:tube, :handshake, :stop], m, _), do: "is open after #{ms(m.duration)} ms"

  defp text([:tube, :handshake, :exception], m, metadata),
    do: "was not opened: #{why(metadata)} (after #{ms(m.duration)} ms)"

  defp text([:tube, :peer, :lost], _, metadata), do: "broke: #{why(metadata)}"

  defp text([:tube, :connection, :stop], m, metadata),
    do: "has ended: #{why(metadata)}#{carried(m)}, after #{ms(m.duration)} ms"

  defp text([:tube, :ring, :full], m, _),
    do: "is full: a message of #{m.size} bytes finds no room"

  defp carried(%{send_cnt: sent, send_oct: out, recv_cnt: received, recv_oct: in_}),
    do: "; sent #{sent} messages (#{out} bytes), received #{received} (#{in_} bytes)"

  defp carried(_not_known), do: ""

  defp why(%{reason: :owner_down}), do: "its owner ended"
  defp why(%{reason: :closed}), do: "closed"
  defp why(%{reason: reason}), do: Tube.Error.message(reason)

  defp ms(native), do: System.convert_time_unit(native, :native, :millisecond)

  defp name(metadata), do: [between(metadata), " ", inspect(metadata.service)]

  defp between(%{role: :nock} = m), do: "#{m.domid}:#{m.tid} -> #{m.peer}"
  defp between(%{role: :tip} = m), do: "#{m.peer}:#{m.tid} -> #{m.domid}"

  defp tags(metadata),
    do: [tube: between(metadata), peer_domid: metadata.peer, service: metadata.service]
end
