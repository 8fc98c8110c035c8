defmodule Tube.Telemetry do
  @moduledoc """
  What this library tells of itself, as events of [`:telemetry`](https://hexdocs.pm/telemetry).

  Add `:telemetry` to the dependencies of your own application and attach handlers to these events;
  nothing else has to be configured. Without `:telemetry`, or as long as nobody has attached a
  handler anywhere, an event costs one look at whether that module is loaded. There is no event per
  message. `Tube.Logger` is a handler ready for use.

  This page is a contract: events, measurements and metadata are added in minor versions, and
  changed or removed in major ones only. Times and durations are in `:native` units
  (`System.convert_time_unit/3`).

  ## Metadata of every event

    * `:span` - a reference that is the same in all events of one tube, and in no others
    * `:role` - `:nock` if this side asked for the tube, `:tip` if it accepted it
    * `:domid` - the domain of this VM
    * `:peer` - the domain at the other end
    * `:tid` - the number of the tube between the two
    * `:service` - name of the service at the tip

  ## Handshake

  One span per attempt, sent by the tube's own process. At the tip it begins with a knock that was
  let in or is being refused with a reason; domains that are not on the list of peers cause none.

    * `[:tube, :handshake, :start]`
      * measurements: `:monotonic_time`, `:system_time`
    * `[:tube, :handshake, :stop]` - the tube is open
      * measurements: `:monotonic_time`, `:duration`
    * `[:tube, :handshake, :exception]` - there will be no tube
      * measurements: `:monotonic_time`, `:duration`
      * metadata also: `:kind`, always `:error`; `:reason`, one of `t:Tube.Error.reason/0`, or `:owner_down` if
        who asked has ended; `:stacktrace`, always `[]`

  ## Connection

  The life of an open tube. At the tip it includes the time that the tube waits to be accepted.

    * `[:tube, :connection, :start]`
      * measurements: `:monotonic_time`, `:system_time`
    * `[:tube, :connection, :stop]` - the rings are given back
      * measurements: `:monotonic_time`, `:duration`, and the counters of `Tube.getstat/1`, unless the tube's
        port was closed by force
      * metadata also: `:reason`, which is `:closed` for an orderly end from either side, `:owner_down`, or a
        `t:Tube.Error.reason/0`

  ## Trouble

    * `[:tube, :ring, :full]` - a message found no room. Sent by the process that sends, once for each message
      that has to wait or is refused for that reason; with `mode: :port` by the tube's process
      * measurements: `:monotonic_time`, `:size` (bytes of the message)
    * `[:tube, :peer, :lost]` - an open tube broke: the peer's VM or domain ended, or it broke the protocol.
      What it had sent before is still delivered, so `[:tube, :connection, :stop]` may follow much later
      * measurements: `:monotonic_time`, `:duration` (since the tube was opened)
      * metadata also: `:reason`

  ## Example

      :telemetry.attach("tubes", [:tube, :peer, :lost], fn _event, _measurements, metadata, _config ->
        MyApp.Alarm.raise(:peer_lost, metadata.peer, Tube.Error.message(metadata.reason))
      end, nil)
  """

  alias Tube.Connection.Registry

  @events [
    [:tube, :handshake, :start],
    [:tube, :handshake, :stop],
    [:tube, :handshake, :exception],
    [:tube, :connection, :start],
    [:tube, :connection, :stop],
    [:tube, :ring, :full],
    [:tube, :peer, :lost]
  ]

  @typedoc false
  @type span :: %{
          phase: :handshake | :connection | :over,
          began: integer,
          metadata: %{atom => term}
        }

  @doc """
  Names of all events, for `:telemetry.attach_many/4`.

      iex> [:tube, :peer, :lost] in Tube.Telemetry.events()
      true
  """
  @spec events() :: [[atom, ...], ...]
  def events, do: @events

  ## What the life of a tube tells. Each takes and gives its span.

  @doc false
  @spec handshake(map) :: span
  def handshake(metadata) do
    now = System.monotonic_time()
    metadata = Map.put(metadata, :span, make_ref())
    start([:tube, :handshake, :start], now, metadata)
    %{phase: :handshake, began: now, metadata: metadata}
  end

  @doc false
  @spec connected(span) :: span
  def connected(span) do
    now = System.monotonic_time()
    stop([:tube, :handshake, :stop], now, span, %{}, %{})
    start([:tube, :connection, :start], now, span.metadata)
    %{span | phase: :connection, began: now}
  end

  @doc false
  @spec failed(span, term) :: span
  def failed(%{phase: :handshake} = span, reason) do
    metadata = %{kind: :error, reason: reason, stacktrace: []}
    stop([:tube, :handshake, :exception], System.monotonic_time(), span, %{}, metadata)
    %{span | phase: :over}
  end

  def failed(%{phase: :connection} = span, reason) do
    stop([:tube, :peer, :lost], System.monotonic_time(), span, %{}, %{reason: reason})
    span
  end

  def failed(span, _reason), do: span

  @doc false
  @spec ended(span, Tube.t() | nil, term) :: span
  def ended(%{phase: :connection} = span, tube, reason) do
    if heard?() do
      counted =
        with %{id: id} <- tube, {:ok, counted} <- Registry.counters(id) do
          Map.new(counted)
        else
          _gone -> %{}
        end

      now = System.monotonic_time()
      stop([:tube, :connection, :stop], now, span, counted, %{reason: reason})
    end

    %{span | phase: :over}
  end

  def ended(span, _tube, _reason), do: span

  @doc false
  @spec full(non_neg_integer, non_neg_integer) :: :ok
  def full(id, size) do
    with true <- heard?(), {:ok, %{span: metadata}} <- Registry.lookup(id) do
      execute(
        [:tube, :ring, :full],
        %{monotonic_time: System.monotonic_time(), size: size},
        metadata
      )
    end

    :ok
  end

  defp start(event, now, metadata),
    do: execute(event, %{monotonic_time: now, system_time: System.system_time()}, metadata)

  defp stop(event, now, span, measurements, metadata) do
    measurements = Map.merge(measurements, %{monotonic_time: now, duration: now - span.began})
    execute(event, measurements, Map.merge(span.metadata, metadata))
  end

  # Who attaches a handler calls that module, and so loads it: while it is not loaded nobody listens.
  # That also keeps an event from looking for it on disk.
  defp heard?, do: function_exported?(:telemetry, :execute, 3)

  # By name, because it is no dependency of ours.
  defp execute(event, measurements, metadata) do
    if heard?(), do: apply(:telemetry, :execute, [event, measurements, metadata])
    :ok
  end
end
