defmodule Tube.Connection.CommandQueue do
  @moduledoc false
  # Messages from commands to a tube, as commands to a port: `{owner, {:command, iodata}}`.
  #
  # A command cannot block its sender. If the ring has no room, the message waits here, in order, or is
  # dropped and counted, as the option `:on_full` says.

  alias Tube.{Native, Telemetry}

  # `asking` waits for the queue to be empty; `dropped` is a counter if messages may be dropped.
  defstruct queue: :queue.new(), cont: nil, asking: [], dropped: nil

  # Room for one message, as callers count it: a page, as in LING, and a record header.
  @slot 4096 + 8

  @type t :: %__MODULE__{}

  @spec new(:wait | :drop) :: t
  def new(:wait), do: %__MODULE__{}
  def new(:drop), do: %__MODULE__{dropped: :counters.new(1, [])}

  @spec empty?(t) :: boolean
  def empty?(commands), do: :queue.is_empty(commands.queue)

  @doc "Adds a message, and sends what the ring has room for."
  @spec push(t, non_neg_integer, iodata) ::
          {:ok, t} | {:refused, :emsgsize, t} | {:error, atom}
  def push(commands, id, iodata) do
    message = IO.iodata_to_binary(iodata)
    queued = %{commands | queue: :queue.in(message, commands.queue)}

    cond do
      empty?(commands) -> queued |> resume(id) |> report_full(id)
      # Part of an earlier message is in the ring.
      commands.dropped -> {:ok, drop(commands, id, message)}
      true -> {:ok, queued}
    end
  end

  @typedoc "A caller of `GenServer`, or a process that gets `{:can_send, pid, n}`."
  @type asker :: {:reply, GenServer.from()} | {:send, pid}

  @doc "Tells `asker` how many messages there is room for, once the queue is empty."
  @spec ask(t, non_neg_integer, asker) :: t
  def ask(commands, id, asker) do
    commands = %{commands | asking: [asker | commands.asking]}
    if empty?(commands), do: reply(commands, id), else: commands
  end

  @doc "Drops the queue: nothing more is sent."
  @spec give_up(t) :: t
  def give_up(commands) do
    for asker <- commands.asking, do: tell(asker, :closed)
    %{commands | queue: :queue.new(), cont: nil, asking: []}
  end

  defp reply(%{asking: []} = commands, _id), do: commands

  defp reply(commands, id) do
    answer =
      case Native.info(id) do
        {:ok, %{gone: false, tx: %{finished: false} = tx}} ->
          # One more can always wait here.
          least = if commands.dropped, do: 0, else: 1
          max(least, div(tx.ring - tx.backlog, @slot))

        _no_more ->
          :closed
      end

    for asker <- Enum.reverse(commands.asking), do: tell(asker, answer)
    %{commands | asking: []}
  end

  defp tell({:reply, from}, :closed), do: GenServer.reply(from, {:error, :closed})
  defp tell({:reply, from}, n), do: GenServer.reply(from, {:ok, n})
  defp tell({:send, pid}, answer), do: send(pid, {:can_send, self(), answer})

  # Reports the first message that waits. Those behind it wait for it.
  defp report_full({:ok, %{queue: queue}} = result, id) do
    with {:value, message} <- :queue.peek(queue), do: Telemetry.full(id, byte_size(message))
    result
  end

  defp report_full(result, _id), do: result

  @doc "Goes on after `{:\"$tube_space\", id}`."
  @spec resume(t, non_neg_integer) :: {:ok, t} | {:refused, :emsgsize, t} | {:error, atom}
  def resume(commands, id) do
    case :queue.peek(commands.queue) do
      :empty -> {:ok, reply(commands, id)}
      {:value, message} -> commands |> sent(id, send_on(id, message, commands.cont))
    end
  end

  defp send_on(id, message, nil), do: Native.send(id, message)
  defp send_on(id, message, cont), do: Native.send(id, message, cont)

  defp sent(commands, id, :ok),
    do: resume(%{commands | queue: :queue.drop(commands.queue), cont: nil}, id)

  defp sent(commands, id, {:more, cont}), do: resume(%{commands | cont: cont}, id)

  # No part of it is in the ring yet. If the link has ended meanwhile, the next call says so.
  defp sent(%{dropped: counter} = commands, id, {:wait, 0}) when counter != nil do
    _ok_or_closed = Native.send_cancel(id)
    {{:value, message}, queue} = :queue.out(commands.queue)
    %{commands | queue: queue, cont: nil} |> drop(id, message) |> resume(id)
  end

  defp sent(commands, _id, {:wait, cont}), do: {:ok, %{commands | cont: cont}}

  # This message can never be sent; those behind it can.
  defp sent(commands, id, {:error, :emsgsize}) do
    case resume(%{commands | queue: :queue.drop(commands.queue), cont: nil}, id) do
      {:ok, commands} -> {:refused, :emsgsize, commands}
      other -> other
    end
  end

  defp sent(_commands, _id, {:error, _} = error), do: error

  defp drop(commands, id, message) do
    Telemetry.full(id, byte_size(message))
    :counters.add(commands.dropped, 1, 1)
    commands
  end
end
