defmodule Tube.Bench.Dist.Work do
  @moduledoc false
  # What the nodes do. All of it runs in them: `a` measures, `b` answers. A measurement ends when `b`
  # has said that it has everything, so nothing that only lies in a queue or a buffer is counted.

  use GenServer

  @pairs 50
  # No answer takes this long; one that does hangs.
  @limit 60_000

  @doc "Does `count` of a kind to node `b`: nanoseconds of all, or of each round trip."
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

  # Somebody else sends large messages over the same connection all the while.
  def run(:ping_under_bulk, b, size, count) do
    sink = Node.spawn_link(b, __MODULE__, :sink, [size])
    payload = payload(size)
    {bulk, ref} = spawn_monitor(fn -> bulk(sink, payload) end)
    # Well under way when this is answered behind the first of it.
    send(sink, {:all, self(), :any})
    receive do: ({^sink, :all} -> :ok)
    result = run(:ping, b, 0, count)
    Process.exit(bulk, :kill)
    receive do: ({:DOWN, ^ref, :process, ^bulk, _killed} -> :ok)
    # Behind what is still on its way.
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

  # Links would tell of its end; nothing of one measurement is to be there in the next.
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
    # As whoever takes much from a node would have it.
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

  # Of the right length and right at both ends, which lie in different pages if it is large.
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
