defmodule Tube.Bench.Work do
  @moduledoc false
  # The two sides of each case: `near` in the VM that opens and measures, `far` in the other one. A
  # measurement starts when the far side is ready and ends when its reply to the last message
  # arrives, so messages in buffers do not count.

  alias Tube.Bench.Carrier

  @ready "ready"
  @done "done"
  @mark 0xA5
  # Number of messages to deliver in active mode before the receiver renews it: enough that renewing
  # costs little, few enough that 64 KiB messages do not exhaust the memory.
  @credit 128
  @senders 50

  @doc "Sends `count` messages of `size` bytes. Returns the nanoseconds until all have arrived."
  @spec near(:pull | :batch | :active | :many, module, Carrier.link(), pos_integer, pos_integer) ::
          pos_integer
  def near(:many, carrier, link, size, count) do
    payload = payload(size)
    share = div(count, @senders)

    timed(carrier, link, fn ->
      workers =
        for _ <- 1..@senders, do: spawn_monitor(fn -> carrier.push(link, payload, share) end)

      for {pid, ref} <- workers, do: receive(do: ({:DOWN, ^ref, :process, ^pid, :normal} -> :ok))
    end)
  end

  def near(_kind, carrier, link, size, count) do
    payload = payload(size)
    timed(carrier, link, fn -> carrier.push(link, payload, count) end)
  end

  @doc "Receives the messages of `near/5`."
  @spec far(:pull | :batch | :active | :many, module, Carrier.link(), pos_integer, pos_integer) ::
          :ok
  def far(kind, carrier, link, size, count) do
    :ok = carrier.send(link, @ready)

    case kind do
      one_sender when one_sender in [:pull, :batch] -> pull(carrier, link, size, count)
      :active -> receive_active(carrier, link, size, count)
      :many -> pull(carrier, link, size, div(count, @senders) * @senders)
    end

    :ok = carrier.send(link, @done)
  end

  @doc "Measures `count` round trips of `size` bytes in nanoseconds."
  @spec ping(module, Carrier.link(), pos_integer, pos_integer) :: [pos_integer]
  def ping(carrier, link, size, count) do
    {:ok, @ready} = carrier.recv(link)

    with_reply_mode(carrier, link, fn ->
      pings(carrier, carrier.reply_receive(), link, payload(size), count, [])
    end)
  end

  @doc "Returns the messages of `ping/4`."
  @spec echo(module, Carrier.link(), pos_integer) :: :ok
  def echo(carrier, link, count) do
    with_reply_mode(carrier, link, fn ->
      :ok = carrier.send(link, @ready)
      echoes(carrier, carrier.reply_receive(), link, count)
    end)
  end

  defp with_reply_mode(carrier, link, work) do
    active? = carrier.reply_receive() == :active
    if active?, do: :ok = carrier.active(link, true)
    result = work.()
    if active?, do: :ok = carrier.active(link, false)
    result
  end

  @doc "Opens, receives one message and closes, `count` times. Returns the nanoseconds."
  @spec opens(module, Carrier.address(), pos_integer) :: pos_integer
  def opens(carrier, address, count) do
    start = now()

    for _ <- 1..count do
      link = carrier.open(address)
      {:ok, @done} = carrier.recv(link)
      :ok = carrier.close(link)
    end

    now() - start
  end

  @doc "Accepts, sends one message and waits for the close, `count` times."
  @spec accepts(module, Carrier.listener(), pos_integer) :: :ok
  def accepts(carrier, listener, count) do
    for _ <- 1..count do
      link = carrier.accept(listener)
      :ok = carrier.send(link, @done)
      {:error, :closed} = carrier.recv(link)
      :ok = carrier.close(link)
    end

    :ok
  end

  defp timed(carrier, link, work) do
    {:ok, @ready} = carrier.recv(link)
    start = now()
    work.()
    {:ok, @done} = carrier.recv(link)
    now() - start
  end

  defp pull(carrier, link, size, count) do
    case carrier.bulk_receive(size) do
      :recv_many -> receive_batches(carrier, link, size, count)
      :active -> receive_active(carrier, link, size, count)
    end
  end

  defp receive_batches(_carrier, _link, _size, 0), do: :ok

  defp receive_batches(carrier, link, size, left) do
    {:ok, messages} = carrier.recv_many(link)
    receive_batches(carrier, link, size, left - touch_all(messages, size, 0))
  end

  defp receive_active(carrier, link, size, count) do
    :ok = carrier.active(link, @credit)
    delivered(carrier, link, size, count)
    :ok = carrier.active(link, false)
    # The last message may have used up the credit.
    receive do
      {passive, ^link} when passive in [:tube_passive, :tcp_passive] -> :ok
    after
      0 -> :ok
    end
  end

  defp delivered(_carrier, _link, _size, 0), do: :ok

  defp delivered(carrier, link, size, left) do
    receive do
      {_data, ^link, data} ->
        touch(data, size)
        delivered(carrier, link, size, left - 1)

      {passive, ^link} when passive in [:tube_passive, :tcp_passive] ->
        :ok = carrier.active(link, @credit)
        delivered(carrier, link, size, left)

      {closed, ^link} ->
        exit({closed, left})
    after
      Carrier.limit() -> exit({:stalled, left})
    end
  end

  defp pings(_carrier, _how, _link, _payload, 0, samples), do: samples

  defp pings(carrier, how, link, payload, left, samples) do
    start = now()
    :ok = carrier.send(link, payload)
    data = receive_reply(carrier, how, link, left)
    took = now() - start
    true = byte_size(data) == byte_size(payload)
    pings(carrier, how, link, payload, left - 1, [took | samples])
  end

  defp echoes(_carrier, _how, _link, 0), do: :ok

  defp echoes(carrier, how, link, left) do
    :ok = carrier.send(link, receive_reply(carrier, how, link, left))
    echoes(carrier, how, link, left - 1)
  end

  defp receive_reply(carrier, :recv, link, _left) do
    {:ok, data} = carrier.recv(link)
    data
  end

  defp receive_reply(_carrier, :active, link, left) do
    receive do
      {_data, ^link, data} -> data
    after
      Carrier.limit() -> exit({:stalled, left})
    end
  end

  # Checks the length and both ends, which are in different pages if the message is large.
  defp touch(data, size) do
    between = size - 2
    <<first, _::binary-size(between), last>> = data
    true = first == @mark and last == @mark
  end

  defp touch_all([], _size, count), do: count

  defp touch_all([data | rest], size, count) do
    touch(data, size)
    touch_all(rest, size, count + 1)
  end

  defp payload(size), do: :binary.copy(<<@mark>>, size)

  defp now, do: :erlang.monotonic_time(:nanosecond)
end
