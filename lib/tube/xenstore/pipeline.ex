defmodule Tube.Xenstore.Pipeline do
  @moduledoc false
  # The window of requests that are on their way to the store; pure. It decides what may be sent
  # now, gives each request its req_id, and matches each reply to the owner of its request.
  #
  # A request stays in the window until its reply arrives, whether or not a caller still waits: for
  # the store it is outstanding.

  alias Tube.Xenstore.Wire.{Codec, Reason, Request}

  # C xenstored stops reading from a guest with 20 outstanding requests, its kernel's included.
  @window 16

  # One at a time. The store would accept more (Xen's ten in a domain, its kernel's included), but
  # the transactions of one VM write below the same parents, so each commit makes all other open
  # ones fail. With a slow store, as through a guest's device, some would use up their tries.
  @transactions 1

  defstruct max_payload: nil,
            rest: <<>>,
            next_id: 1,
            in_flight: %{},
            queue: :queue.new(),
            starts: :queue.new(),
            open: 0

  @typedoc "Identifies the requester; opaque to this module."
  @type owner :: term()

  @type event ::
          {:reply, owner(), Codec.type(), {:ok, binary()} | {:error, Reason.t()}}
          | {:watch, path :: binary(), token :: binary()}

  @opaque t :: %__MODULE__{}

  @spec new(pos_integer()) :: t()
  def new(max_payload), do: %__MODULE__{max_payload: max_payload}

  @doc "Queues a request."
  @spec push(t(), owner(), Request.t(), non_neg_integer()) ::
          {:ok, t()} | {:error, :einval | :e2big}
  def push(pipeline, owner, request, tx) do
    with {:ok, type, payload} <- Request.encode(request) do
      payload = IO.iodata_to_binary(payload)

      if byte_size(payload) <= pipeline.max_payload,
        do: {:ok, %{pipeline | queue: :queue.in({owner, type, tx, payload}, pipeline.queue)}},
        else: {:error, :e2big}
    end
  end

  @doc """
  Takes the next packet to send, if one may be sent now.

  Drops requests that are not `wanted?` any more, except the END of a transaction: without it the
  transaction would stay open.
  """
  @spec next(t(), (owner() -> boolean())) :: {:send, binary(), t()} | {:idle, t()}
  def next(pipeline, _wanted?) when map_size(pipeline.in_flight) >= @window, do: {:idle, pipeline}

  def next(pipeline, wanted?) do
    case take(pipeline) do
      :empty ->
        {:idle, pipeline}

      {{owner, type, _tx, _payload} = item, pipeline} ->
        cond do
          type != :transaction_end and not wanted?.(owner) ->
            next(pipeline, wanted?)

          type == :transaction_start and pipeline.open >= @transactions ->
            next(%{pipeline | starts: :queue.in(item, pipeline.starts)}, wanted?)

          true ->
            packet(pipeline, item)
        end
    end
  end

  @doc "Takes bytes of the stream. An error is the end of the connection."
  @spec feed(t(), binary()) :: {:ok, [event()], t()} | {:error, String.t()}
  def feed(pipeline, bytes) do
    with {:ok, packets, rest} <- Codec.feed(pipeline.rest, bytes),
         do: events(packets, %{pipeline | rest: rest}, [])
  end

  # Transactions that had to wait for the end of another come first.
  defp take(pipeline) do
    if pipeline.open < @transactions and not :queue.is_empty(pipeline.starts),
      do: take(pipeline, :starts),
      else: take(pipeline, :queue)
  end

  defp take(pipeline, which) do
    case :queue.out(Map.fetch!(pipeline, which)) do
      {:empty, _queue} -> :empty
      {{:value, item}, queue} -> {item, Map.put(pipeline, which, queue)}
    end
  end

  defp packet(pipeline, {owner, type, tx, payload}) do
    id = free_id(pipeline.next_id, pipeline.in_flight)
    {:ok, packet} = Codec.encode(type, id, tx, payload)
    open = if type == :transaction_start, do: pipeline.open + 1, else: pipeline.open
    in_flight = Map.put(pipeline.in_flight, id, {owner, type})
    {:send, packet, %{pipeline | in_flight: in_flight, next_id: id + 1, open: open}}
  end

  # 0 is the store's; after four billion requests an old one might still be outstanding.
  defp free_id(id, in_flight) when id > 0xFFFFFFFF, do: free_id(1, in_flight)
  defp free_id(id, in_flight) when is_map_key(in_flight, id), do: free_id(id + 1, in_flight)
  defp free_id(id, _in_flight), do: id

  defp events([], pipeline, events), do: {:ok, Enum.reverse(events), pipeline}

  # Recognized by its type, not by a req_id of 0, which the kernel's device does not set.
  defp events([{:watch_event, _id, _tx, payload} | packets], pipeline, events) do
    case Request.names(payload) do
      {:ok, [path, token | _more]} -> events(packets, pipeline, [{:watch, path, token} | events])
      _other -> {:error, "a watch event without path and token"}
    end
  end

  defp events([{type, id, _tx, payload} | packets], pipeline, events) do
    case Map.pop(pipeline.in_flight, id) do
      {{owner, sent}, in_flight} when type in [sent, :error] ->
        result = if type == :error, do: {:error, Reason.parse(payload)}, else: {:ok, payload}
        pipeline = settle(sent, type, %{pipeline | in_flight: in_flight})

        # A transaction without a number could never be ended.
        if type == :transaction_start and Request.decode(type, payload) == {:error, :protocol},
          do: {:error, "a transaction without a number"},
          else: events(packets, pipeline, [{:reply, owner, sent, result} | events])

      {{_owner, sent}, _in_flight} ->
        {:error, "a reply of type #{type} to a request of type #{sent}"}

      {nil, _in_flight} ->
        {:error, "a reply (type #{type}, req_id #{id}) to no request"}
    end
  end

  # A failed START opened nothing. After an END there is no transaction, whatever the reply: it was
  # committed, aborted, or unknown.
  defp settle(:transaction_start, :error, pipeline), do: %{pipeline | open: pipeline.open - 1}
  defp settle(:transaction_end, _type, pipeline), do: %{pipeline | open: pipeline.open - 1}
  defp settle(_sent, _type, pipeline), do: pipeline
end
