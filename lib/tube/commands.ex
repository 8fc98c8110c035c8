defmodule Tube.Commands do
  @moduledoc false
  # Messages that a tube's process was told to send, as ports are told: `{owner, {:command, iodata}}`.
  #
  # Nobody can be made to wait for a message, so what the ring has no room for waits here, in order.

  alias Tube.{Native, Telemetry}

  defstruct queue: :queue.new(), cont: nil

  @type t :: %__MODULE__{}

  @spec new() :: t
  def new, do: %__MODULE__{}

  @spec empty?(t) :: boolean
  def empty?(commands), do: :queue.is_empty(commands.queue)

  @doc "Adds a message, and sends what can be sent."
  @spec push(t, non_neg_integer, iodata) ::
          {:ok, t} | {:refused, :emsgsize, t} | {:error, atom}
  def push(commands, id, iodata) do
    waited? = not empty?(commands)
    commands = %{commands | queue: :queue.in(IO.iodata_to_binary(iodata), commands.queue)}
    if waited?, do: {:ok, commands}, else: commands |> resume(id) |> notice(id)
  end

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
      :empty -> {:ok, commands}
      {:value, message} -> commands |> sent(id, send_on(id, message, commands.cont))
    end
  end

  defp send_on(id, message, nil), do: Native.send(id, message)
  defp send_on(id, message, cont), do: Native.send(id, message, cont)

  defp sent(commands, id, :ok),
    do: resume(%{commands | queue: :queue.drop(commands.queue), cont: nil}, id)

  defp sent(commands, id, {:more, cont}), do: resume(%{commands | cont: cont}, id)
  defp sent(commands, _id, {:wait, cont}), do: {:ok, %{commands | cont: cont}}

  # This one can never be sent; those behind it can.
  defp sent(commands, id, {:error, :emsgsize}) do
    case resume(%{commands | queue: :queue.drop(commands.queue), cont: nil}, id) do
      {:ok, commands} -> {:refused, :emsgsize, commands}
      other -> other
    end
  end

  defp sent(_commands, _id, {:error, _} = error), do: error
end
