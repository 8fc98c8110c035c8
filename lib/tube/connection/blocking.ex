defmodule Tube.Connection.Blocking do
  @moduledoc false
  # Blocking send and receive on top of native calls that never wait: repeats a call that was cut short
  # by its bound, and waits for space or data. Runs in the caller's process.
  #
  # The native side wakes a waiting caller with one `{:"$tube_space", id}` or `{:"$tube_data", id}`. It
  # may arrive after the caller has given up, so every exit from a wait flushes it.

  alias Tube.Connection.Registry
  alias Tube.{Native, Telemetry}

  @type reason :: Tube.Error.reason()

  @doc "Finishes a send that began with `result`."
  @spec send(term, non_neg_integer, binary, timeout | :default) :: :ok | {:error, reason}
  def send({:error, _} = error, _id, _data, _timeout), do: error

  def send({:wait, _} = result, id, data, timeout) do
    Telemetry.full(id, byte_size(data))
    send_on(result, id, data, limit(id, timeout))
  end

  def send(result, id, data, timeout), do: send_on(result, id, data, limit(id, timeout))

  @doc "Sends binaries, each a message. On failure, returns those that were not sent."
  @spec send_many([binary], non_neg_integer, timeout | :default) ::
          :ok | {:error, {reason, [binary]}}
  def send_many(messages, id, timeout) do
    case Native.send_many(id, messages) do
      :ok -> :ok
      {:error, reason, rest} -> {:error, {reason, rest}}
      {:more, rest, 0} -> send_many(rest, id, timeout)
      # The first call that may wait: the time limit starts here.
      other -> many_on(other, id, limit(id, timeout))
    end
  end

  defp many_on(:ok, _id, _deadline), do: :ok
  defp many_on({:error, reason, rest}, _id, _deadline), do: {:error, {reason, rest}}

  defp many_on({:more, rest, 0}, id, deadline),
    do: many_on(Native.send_many(id, rest), id, deadline)

  # The first of the rest needs several calls, or has no room yet: send it alone, then the others.
  defp many_on({more_or_wait, [message | others] = rest, cont}, id, deadline) do
    if more_or_wait == :wait, do: Telemetry.full(id, byte_size(message))

    case send_on({more_or_wait, cont}, id, message, deadline) do
      :ok when others == [] -> :ok
      :ok -> many_on(Native.send_many(id, others), id, deadline)
      {:error, reason} -> {:error, {reason, rest}}
    end
  end

  defp limit(id, :default), do: deadline(Registry.send_timeout(id))
  defp limit(_id, timeout), do: deadline(Tube.Options.timeout!(timeout))

  defp send_on(:ok, _id, _data, _deadline), do: :ok
  defp send_on({:error, _} = error, _id, _data, _deadline), do: error

  # There is space; the call was cut short by its bound. The time limit counts waits only, so a limit
  # of 0 still sends a message that fits.
  defp send_on({:more, cont}, id, data, deadline),
    do: send_on(Native.send(id, data, cont), id, data, deadline)

  defp send_on({:wait, cont}, id, data, deadline) do
    receive do
      {:"$tube_space", ^id} -> send_on(Native.send(id, data, cont), id, data, deadline)
    after
      left(deadline) ->
        Native.send_cancel(id)
        forget(:"$tube_space", id)
        {:error, if(deadline == :at_once, do: :busy, else: :timeout)}
    end
  end

  @doc "Finishes a receive that began with `result`; `again` is the native call that goes on."
  @spec recv(term, non_neg_integer, timeout, (() -> term)) :: {:ok, received} | {:error, reason}
        when received: binary | [binary, ...]
  def recv({:error, _} = error, _id, _timeout, _again), do: error

  def recv(result, id, timeout, again),
    do: recv_on(result, id, deadline(Tube.Options.timeout!(timeout)), again)

  defp recv_on({:ok, _data} = received, _id, _deadline, _again), do: received
  defp recv_on({:error, _} = error, _id, _deadline, _again), do: error
  defp recv_on(:more, id, deadline, again), do: recv_on(again.(), id, deadline, again)

  # A busy-polled tube without data. It asks for no notification; other processes run between two polls.
  defp recv_on(:poll, id, deadline, again) do
    if deadline != :infinity and left(deadline) == 0 do
      give_up(id)
    else
      :erlang.yield()
      recv_on(again.(), id, deadline, again)
    end
  end

  defp recv_on(:wait, id, deadline, again) do
    receive do
      {:"$tube_data", ^id} -> recv_on(again.(), id, deadline, again)
    after
      left(deadline) -> give_up(id)
    end
  end

  defp give_up(id) do
    Native.recv_cancel(id)
    forget(:"$tube_data", id)
    {:error, :timeout}
  end

  defp forget(tag, id) do
    receive do
      {^tag, ^id} -> :ok
    after
      0 -> :ok
    end
  end

  # A caller that does not wait gets :busy, not :timeout.
  defp deadline(0), do: :at_once
  defp deadline(:infinity), do: :infinity
  defp deadline(ms), do: System.monotonic_time(:millisecond) + ms

  defp left(:at_once), do: 0
  defp left(:infinity), do: :infinity
  defp left(deadline), do: max(0, deadline - System.monotonic_time(:millisecond))
end
