defmodule Tube.Connection.CommandQueue do
  @moduledoc false
  # Messages that a tube's process was told to send, as ports are told: `{owner, {:command, iodata}}`.
  #
  # Nobody can be made to wait for a message, so what the ring has no room for waits here, in order, or is
  # dropped and counted, as the option `:on_full` says.

  alias Tube.{Native, Telemetry}

  # `asking` are those who want to know when the queue is empty, `dropped` counts if anything may be.
  defstruct queue: :queue.new(), cont: nil, asking: [], dropped: nil

  # What is counted as room for one message by who asks for room: a page, as in LING, and its header.
  @slot 4096 + 8

  @type t :: %__MODULE__{}

  @spec new(:wait | :drop) :: t
  def new(:wait), do: %__MODULE__{}
  def new(:drop), do: %__MODULE__{dropped: :counters.new(1, [])}

  @spec empty?(t) :: boolean
  def empty?(commands), do: :queue.is_empty(commands.queue)

  @doc "Adds a message, and sends what can be sent."
  @spec push(t, non_neg_integer, iodata) ::
          {:ok, t} | {:refused, :emsgsize, t} | {:error, atom}
  def push(commands, id, iodata) do
    message = IO.iodata_to_binary(iodata)
    queued = %{commands | queue: :queue.in(message, commands.queue)}

    cond do
      empty?(commands) -> queued |> resume(id) |> notice(id)
      # Behind one that is partly in the ring.
      commands.dropped -> {:ok, drop(commands, id, message)}
      true -> {:ok, queued}
    end
  end

  @typedoc "Who asks for room: a caller of `GenServer`, or a process that gets `{:can_send, pid, n}`."
  @type asker :: {:reply, GenServer.from()} | {:send, pid}

  @doc "Tells `asker` for how many messages there is room, once nothing waits here any more."
  @spec ask(t, non_neg_integer, asker) :: t
  def ask(commands, id, asker) do
    commands = %{commands | asking: [asker | commands.asking]}
    if empty?(commands), do: answer(commands, id), else: commands
  end

  @doc "Nothing more will be sent."
  @spec give_up(t) :: t
  def give_up(commands) do
    for asker <- commands.asking, do: tell(asker, :closed)
    %{commands | queue: :queue.new(), cont: nil, asking: []}
  end

  defp answer(%{asking: []} = commands, _id), do: commands

  defp answer(commands, id) do
    answer =
      case Native.info(id) do
        {:ok, %{gone: false, tx: %{finished: false} = tx}} ->
          # What the ring has no room for waits here, so one more can always be taken.
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

  # Those behind it wait too, but only for it.
  defp notice({:ok, %{queue: queue}} = result, id) do
    with {:value, message} <- :queue.peek(queue), do: Telemetry.full(id, byte_size(message))
    result
  end

  defp notice(result, _id), do: result

  @doc "Goes on after `{:\"$tube_space\", id}`."
  @spec resume(t, non_neg_integer) :: {:ok, t} | {:refused, :emsgsize, t} | {:error, atom}
  def resume(commands, id) do
    case :queue.peek(commands.queue) do
      :empty -> {:ok, answer(commands, id)}
      {:value, message} -> commands |> sent(id, send_on(id, message, commands.cont))
    end
  end

  defp send_on(id, message, nil), do: Native.send(id, message)
  defp send_on(id, message, cont), do: Native.send(id, message, cont)

  defp sent(commands, id, :ok),
    do: resume(%{commands | queue: :queue.drop(commands.queue), cont: nil}, id)

  defp sent(commands, id, {:more, cont}), do: resume(%{commands | cont: cont}, id)

  # Nothing of it is in the ring yet. That the link has ended meanwhile the next call will tell.
  defp sent(%{dropped: counter} = commands, id, {:wait, 0}) when counter != nil do
    _ok_or_closed = Native.send_cancel(id)
    {{:value, message}, queue} = :queue.out(commands.queue)
    %{commands | queue: queue, cont: nil} |> drop(id, message) |> resume(id)
  end

  defp sent(commands, _id, {:wait, cont}), do: {:ok, %{commands | cont: cont}}

  # This one can never be sent; those behind it can.
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
