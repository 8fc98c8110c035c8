defmodule Tube.Telemetry do
  @moduledoc """
  The [`:telemetry`](https://hexdocs.pm/telemetry) events of this library.

  Add `:telemetry` to the dependencies of your application and attach handlers to these events; no
  other configuration is necessary. Without `:telemetry`, or as long as no handler is attached
  anywhere, an event only checks whether that module is loaded. There is no event per message.
  `Tube.Logger` is a ready-made handler.

  This page is a contract: minor versions may add events, measurements and metadata; only major
  versions change or remove them. Times and durations are in `:native` units
  (`System.convert_time_unit/3`).

  ## Metadata of every event

    * `:span` - a reference that all events of one tube share, and no others
    * `:role` - `:nock` if this side opened the tube, `:tip` if it accepted it
    * `:domid` - the domain of this VM
    * `:peer` - the domain at the other end
    * `:tid` - the number of the tube between the two
    * `:service` - name of the service at the tip

  ## Handshake

  One span per attempt, executed by the tube's own process. At the tip the span begins when an
  incoming request is accepted or refused with a reason; domains that are not on the list of peers
  cause no events.

    * `[:tube, :handshake, :start]`
      * measurements: `:monotonic_time`, `:system_time`
    * `[:tube, :handshake, :stop]` - the tube is open
      * measurements: `:monotonic_time`, `:duration`
    * `[:tube, :handshake, :exception]` - the handshake failed
      * measurements: `:monotonic_time`, `:duration`
      * metadata also: `:kind`, always `:error`; `:reason`, one of `t:Tube.Error.reason/0`, or
        `:owner_down` if the process that opened the tube has ended; `:stacktrace`, always `[]`

  ## Connection

  The span of an open tube. At the tip it includes the time that the tube waits to be accepted.

    * `[:tube, :connection, :start]`
      * measurements: `:monotonic_time`, `:system_time`
    * `[:tube, :connection, :stop]` - the rings are free
      * measurements: `:monotonic_time`, `:duration`, and the counters of `Tube.getstat/1`, unless
        the tube's port was closed by force
      * metadata also: `:reason`, which is `:closed` for an orderly end from either side,
        `:owner_down`, or a `t:Tube.Error.reason/0`

  ## Trouble

    * `[:tube, :ring, :full]` - a message found no room. Executed by the sending process, once for
      each message that has to wait or is refused for that reason; with `mode: :port` by the tube's
      process
      * measurements: `:monotonic_time`, `:size` (bytes of the message)
    * `[:tube, :peer, :lost]` - an open tube lost its peer: the peer's VM or domain ended, or the
      peer broke the protocol. Messages that it sent before are still delivered, so `[:tube,
      :connection, :stop]` may follow much later
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
  Returns the names of all events, for `:telemetry.attach_many/4`.

      iex> [:tube, :peer, :lost] in Tube.Telemetry.events()
      true
  """
  @spec events() :: [[atom, ...], ...]
  def events, do: @events

  ## Called by a tube's process, which keeps the span

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
    if loaded?() do
      counters =
        with %{id: id} <- tube, {:ok, counters} <- Registry.counters(id) do
          Map.new(counters)
        else
          _gone -> %{}
        end

      now = System.monotonic_time()
      stop([:tube, :connection, :stop], now, span, counters, %{reason: reason})
    end

    %{span | phase: :over}
  end

  def ended(span, _tube, _reason), do: span

  @doc false
  @spec full(non_neg_integer, non_neg_integer) :: :ok
  def full(id, size) do
    with true <- loaded?(), {:ok, %{span: metadata}} <- Registry.lookup(id) do
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

  # Attaching a handler loads the module: while it is not loaded there are no handlers. This check
  # never searches for the module on disk.
  defp loaded?, do: function_exported?(:telemetry, :execute, 3)

  # By name, because `:telemetry` is not a dependency.
  defp execute(event, measurements, metadata) do
    if loaded?(), do: apply(:telemetry, :execute, [event, measurements, metadata])
    :ok
  end
end
