defmodule Tube.Xenstore.Pipeline do
  @moduledoc false
  # Requests on their way to the store and replies on their way back; pure. It decides what may be
  # sent now, gives each request its req_id, and finds for each reply who asked.
  #
  # A request stays in the window until it is answered, whether or not anybody still waits for it:
  # to the store it is outstanding.

  alias Tube.Xenstore.{Codec, Reason, Request}

  # C xenstored reads no more from a guest that has 20 unanswered requests, its kernel's included.
  @window 16

  # One after the other. The store would take some (Xen's ten in a domain, its kernel's included), but those
  # of one VM write below the same parents, so that each commit makes all others that are open fail; with
  # a store that is slow to answer, as through a guest's device, some then use up their tries.
  @transactions 1

  defstruct max_payload: nil,
            rest: <<>>,
            next_id: 1,
            in_flight: %{},
            queue: :queue.new(),
            starts: :queue.new(),
            open: 0

  @typedoc "Whoever asked, in the words of the caller of this module."
  @type owner :: term()

  @type event ::
          {:reply, owner(), Codec.type(), {:ok, binary()} | {:error, Reason.t()}}
          | {:watch, path :: binary(), token :: binary()}

  @opaque t :: %__MODULE__{}

  @spec new(pos_integer()) :: t()
  def new(max_payload), do: %__MODULE__{max_payload: max_payload}

  @doc "How many requests may be unanswered, and how many transactions open."
  @spec limits() :: {pos_integer(), pos_integer()}
  def limits, do: {@window, @transactions}

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

  Requests for which nobody waits any more are dropped, by `wanted?`; the END of a transaction is
  never: it is what keeps transactions from staying open.
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

  @doc "What is on its way."
  @spec info(t()) :: %{
          in_flight: non_neg_integer(),
          queued: non_neg_integer(),
          open: non_neg_integer()
        }
  def info(pipeline) do
    queued = :queue.len(pipeline.queue) + :queue.len(pipeline.starts)
    %{in_flight: map_size(pipeline.in_flight), queued: queued, open: pipeline.open}
  end

  # Transactions that had to wait for another's end come first.
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

  # 0 is left to the store; after four billion requests an old one might still be unanswered.
  defp free_id(id, in_flight) when id > 0xFFFFFFFF, do: free_id(1, in_flight)
  defp free_id(id, in_flight) when is_map_key(in_flight, id), do: free_id(id + 1, in_flight)
  defp free_id(id, _in_flight), do: id

  defp events([], pipeline, events), do: {:ok, Enum.reverse(events), pipeline}

  # By its type, not by a req_id of 0: the kernel's device does not set that.
  defp events([{:watch_event, _id, _tx, payload} | packets], pipeline, events) do
    case Request.names(payload) do
      {:ok, [path, token | _more]} -> events(packets, pipeline, [{:watch, path, token} | events])
      _other -> {:error, "a watch event without path and token"}
    end
  end

  defp events([{type, id, _tx, payload} | packets], pipeline, events) do
    case Map.pop(pipeline.in_flight, id) do
      {{owner, asked}, in_flight} when type in [asked, :error] ->
        result = if type == :error, do: {:error, Reason.parse(payload)}, else: {:ok, payload}
        pipeline = settle(asked, type, %{pipeline | in_flight: in_flight})

        # One that has no number could never be ended.
        if type == :transaction_start and Request.decode(type, payload) == {:error, :protocol},
          do: {:error, "a transaction without a number"},
          else: events(packets, pipeline, [{:reply, owner, asked, result} | events])

      {{_owner, asked}, _in_flight} ->
        {:error, "a reply of type #{type} to a request of type #{asked}"}

      {nil, _in_flight} ->
        {:error, "a reply (type #{type}, req_id #{id}) to nothing that was asked"}
    end
  end

  # A START that failed opened nothing. After an END there is no transaction, whatever it says:
  # it was committed, aborted, or not known.
  defp settle(:transaction_start, :error, pipeline), do: %{pipeline | open: pipeline.open - 1}
  defp settle(:transaction_end, _type, pipeline), do: %{pipeline | open: pipeline.open - 1}
  defp settle(_asked, _type, pipeline), do: pipeline
end
