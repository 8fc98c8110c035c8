defmodule Tube.Test.Traffic do
  @moduledoc """
  Reproducible traffic: a seed determines the sizes and bytes of all messages, so the receiver can
  check count, sizes, order and content on its own.
  """

  # Large enough for the largest message at any offset.
  @pool 2_097_152

  @doc "Sends `bytes` in messages of random sizes up to `largest`; returns how many."
  @spec send(Tube.t(), integer, pos_integer, pos_integer) :: non_neg_integer
  def send(tube, seed, bytes, largest) do
    each(seed, bytes, largest, fn message -> :ok = Tube.send(tube, message) end)
  end

  @doc "Receives and checks the messages of `send/4` with the same arguments; returns how many."
  @spec recv(Tube.t(), integer, pos_integer, pos_integer) :: non_neg_integer
  def recv(tube, seed, bytes, largest) do
    each(seed, bytes, largest, fn expected ->
      {:ok, message} = Tube.recv(tube, 20_000)

      if message != expected do
        raise "received #{byte_size(message)} bytes, crc #{:erlang.crc32(message)}, " <>
                "expected #{byte_size(expected)} bytes, crc #{:erlang.crc32(expected)}"
      end
    end)
  end

  @doc "Sends with `seed` and receives with `peer_seed` at the same time, on one tube."
  @spec exchange(Tube.t(), integer, integer, pos_integer, pos_integer) :: {integer, integer}
  def exchange(tube, seed, peer_seed, bytes, largest) do
    # Only the owner receives; anyone may send.
    sender = Task.async(fn -> send(tube, seed, bytes, largest) end)
    received = recv(tube, peer_seed, bytes, largest)
    {Task.await(sender, :infinity), received}
  end

  defp each(seed, bytes, largest, fun) do
    each(:rand.seed_s(:exsss, seed), pool(seed), bytes, largest, fun, 0)
  end

  defp each(_rand, _pool, left, _largest, _fun, count) when left <= 0, do: count

  defp each(rand, pool, left, largest, fun, count) do
    {size, rand} = size(rand, largest)
    {offset, rand} = :rand.uniform_s(@pool - largest, rand)
    fun.(binary_part(pool, offset, size))
    each(rand, pool, left - max(size, 1), largest, fun, count + 1)
  end

  # The logarithm is uniform, so small messages are as frequent as large ones. Zero occurs too.
  defp size(rand, largest) do
    {x, rand} = :rand.uniform_real_s(rand)
    {trunc(:math.pow(largest + 1, x)) - 1, rand}
  end

  defp pool(seed) do
    block = :crypto.hash(:sha512, "#{seed}")
    {:ok, key} = {:ok, binary_part(block, 0, 16)}

    :crypto.crypto_one_time(
      :aes_128_ctr,
      key,
      binary_part(block, 16, 16),
      <<0::size(@pool)-unit(8)>>,
      true
    )
  end
end
