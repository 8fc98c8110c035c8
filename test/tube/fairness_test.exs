defmodule Tube.FairnessTest do
  # No call blocks others for longer than a bound, and nothing grows while an owner does not read.
  # recv_many_test.exs has the bound for many messages in one call.
  use Tube.Test.NativeCase, async: false

  @ring 1024 * 1024
  # The most bytes that one call copies, from native/link.
  @bound 256 * 1024

  test "no call copies more than its bound", context do
    {tip, nock} = tube(context, order: 8)
    message = :binary.copy("x", 8 * @ring)
    {steps, received} = through(tip.id, nock.id, message)
    assert received == message
    assert Enum.max(steps) <= @bound
    assert length(steps) >= 32
  end

  test "a call takes far less than a millisecond of processor time", context do
    {tip, nock} = tube(context, order: 8)
    message = :binary.copy("x", 8 * @ring)
    # The time of all threads of this VM: their other work only makes this harder.
    {before, _} = :erlang.statistics(:runtime)
    calls = for _ <- 1..8, {steps, _} = through(tip.id, nock.id, message), _ <- steps, do: :call
    {spent, _} = :erlang.statistics(:runtime)
    assert (spent - before) / length(calls) < 1.0
  end

  test "a long call uses more reductions than a short one", context do
    {tip, _nock} = tube(context, order: 8)
    short = reductions(fn -> :ok = Native.send(tip.id, "x") end)
    long = reductions(fn -> {:more, _} = Native.send(tip.id, :binary.copy("x", 600_000)) end)
    # A time slice has 4000 reductions; 256 KiB cost four per cent of it.
    assert long - short >= 100
  end

  test "memory does not grow while a passive owner does not read", context do
    {tip, nock} = tube(context, order: 8)
    message = :binary.copy("x", 60_000)
    :erlang.garbage_collect()
    before = :erlang.memory(:total)
    senders = for _ <- 1..20, do: helper()

    for sender <- senders do
      assert ask(sender, fn -> fill(tip.id, message) end) == :ok
    end

    assert :erlang.memory(:total) - before < @ring
    assert Process.info(self(), :message_queue_len) == {:message_queue_len, 0}
    {:ok, info} = Native.info(tip.id)
    assert info.tx.backlog <= @ring
    assert info.tx.messages <= div(@ring, 60_000)

    # The same after a counted owner has received its count.
    :ok = Native.Driver.active(nock.port, 3)
    for _ <- 1..3, do: assert_receive({:tube, _tube, ^message}, 5_000)
    assert_receive {:tube_passive, _tube}, 5_000
    refute_receive {:tube, _tube, _data}, 20
  end

  test "a reader that does not read blocks only its sender", context do
    {stuck, _} = tube(context, order: 0)
    {tip, nock} = tube(context, order: 0)
    :ok = fill(stuck.id)

    for n <- 1..2_000 do
      :ok = send_all(tip.id, <<n::32>>)
      assert recv_all(nock.id) == {:ok, <<n::32>>}
    end

    assert Native.send(stuck.id, :binary.copy("x", 1000)) == {:wait, 0}
  end

  # Sends and receives in turn. Returns how many bytes each send call copied.
  defp through(from, to, message), do: through(from, to, message, {:more, 0}, [])

  defp through(from, to, message, :ok, steps) do
    case Native.recv(to) do
      {:ok, received} -> {Enum.reverse([byte_size(message) | steps]) |> differences(), received}
      more when more in [:more, :wait] -> through(from, to, message, :ok, steps)
    end
  end

  defp through(from, to, message, {_more_or_wait, cont}, steps) do
    sent = Native.send(from, message, cont)
    unless sent == :ok, do: true = Native.recv(to) in [:more, :wait]
    through(from, to, message, sent, [cont | steps])
  end

  defp differences(steps), do: Enum.zip_with(steps, tl(steps), &(&2 - &1))

  defp reductions(fun) do
    {:reductions, before} = Process.info(self(), :reductions)
    fun.()
    {:reductions, later} = Process.info(self(), :reductions)
    later - before
  end
end
