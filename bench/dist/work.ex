defmodule Tube.Bench.Dist.Work do
  @moduledoc false
  # The work of the nodes: `a` measures, `b` replies. A measurement ends when `b` has confirmed that
  # it has everything, so messages in queues and buffers do not count.

  use GenServer

  @pairs 50
  # A reply that takes longer hangs.
  @limit 60_000

  @doc "Runs `count` messages to node `b`. Returns total nanoseconds, and those of each round trip."
  @spec run(Tube.Bench.Dist.Cases.kind(), node, non_neg_integer, pos_integer) ::
          {pos_integer, [pos_integer]}
  def run(:send, b, size, count) do
    sink = Node.spawn_link(b, __MODULE__, :sink, [size])
    took = timed(fn -> stream(sink, payload(size), count) end)
    finish(sink)
    {took, []}
  end

  def run(:many, b, size, count) do
    payload = payload(size)
    share = div(count, @pairs)
    sinks = for _ <- 1..@pairs, do: Node.spawn_link(b, __MODULE__, :sink, [size])

    took =
      timed(fn ->
        senders = for sink <- sinks, do: spawn_monitor(fn -> stream(sink, payload, share) end)

        for {pid, ref} <- senders,
            do: receive(do: ({:DOWN, ^ref, :process, ^pid, :normal} -> :ok))
      end)

    Enum.each(sinks, &finish/1)
    {took, []}
  end

  def run(:ping, b, _size, count) do
    echo = Node.spawn_link(b, __MODULE__, :echo, [])
    samples = pings(echo, count, [])
    finish(echo)
    {Enum.sum(samples), samples}
  end

  def run(:call, b, _size, count) do
    server = Node.spawn_link(b, __MODULE__, :serve, [self()])
    pid = receive(do: ({^server, pid} -> pid))
    samples = calls(pid, count, [])
    finish(server)
    {Enum.sum(samples), samples}
  end

  # Another process sends large messages over the same connection all the time.
  def run(:ping_under_bulk, b, size, count) do
    sink = Node.spawn_link(b, __MODULE__, :sink, [size])
    payload = payload(size)
    {bulk, ref} = spawn_monitor(fn -> bulk(sink, payload) end)
    # This reply follows the first large messages, so they are well under way.
    send(sink, {:all, self(), :any})
    receive do: ({^sink, :all} -> :ok)
    result = run(:ping, b, 0, count)
    Process.exit(bulk, :kill)
    receive do: ({:DOWN, ^ref, :process, ^bulk, _killed} -> :ok)
    # This waits for the large messages that are still on their way.
    finish(sink)
    result
  end

  ## In a

  defp stream(sink, payload, count) do
    push(sink, payload, count)
    send(sink, {:all, self(), count})

    receive do
      {^sink, :all} -> :ok
    after
      @limit -> exit(:stalled)
    end
  end

  defp push(_sink, _payload, 0), do: :ok

  defp push(sink, payload, left) do
    send(sink, payload)
    push(sink, payload, left - 1)
  end

  defp bulk(sink, payload) do
    send(sink, payload)
    bulk(sink, payload)
  end

  defp pings(_echo, 0, samples), do: samples

  defp pings(echo, left, samples) do
    began = now()
    send(echo, {:ping, self()})

    receive do
      :pong -> pings(echo, left - 1, [now() - began | samples])
    after
      @limit -> exit(:stalled)
    end
  end

  defp calls(_server, 0, samples), do: samples

  defp calls(server, left, samples) do
    began = now()
    :pong = GenServer.call(server, :ping)
    calls(server, left - 1, [now() - began | samples])
  end

  # Waits for the end of the process, so that nothing of this measurement disturbs the next one.
  defp finish(pid) do
    ref = Process.monitor(pid)
    Process.unlink(pid)
    send(pid, :finish)
    receive do: ({:DOWN, ^ref, :process, ^pid, _normal} -> :ok)
  end

  defp timed(work) do
    began = now()
    work.()
    now() - began
  end

  defp payload(size), do: :binary.copy(<<0xA5>>, size)
  defp now, do: :erlang.monotonic_time(:nanosecond)

  ## In b

  @doc false
  def sink(size) do
    # The usual setting for a process that receives a lot.
    Process.flag(:message_queue_data, :off_heap)
    sunk(size, 0)
  end

  defp sunk(size, count) do
    receive do
      data when is_binary(data) ->
        touch(data, size)
        sunk(size, count + 1)

      {:all, from, expected} when expected in [count, :any] ->
        send(from, {self(), :all})
        sunk(size, 0)

      :finish ->
        :ok
    end
  end

  # Checks the length and both ends, which are in different pages if the message is large.
  defp touch(data, size) do
    between = size - 2
    <<0xA5, _::binary-size(between), 0xA5>> = data
  end

  @doc false
  def echo do
    receive do
      {:ping, from} ->
        send(from, :pong)
        echo()

      :finish ->
        :ok
    end
  end

  @doc false
  def serve(to) do
    {:ok, pid} = GenServer.start_link(__MODULE__, nil)
    send(to, {self(), pid})
    receive do: (:finish -> GenServer.stop(pid))
  end

  @impl true
  def init(nil), do: {:ok, nil}

  @impl true
  def handle_call(:ping, _from, state), do: {:reply, :pong, state}
end
