defmodule Tube.Bench.Carrier.Tube do
  @moduledoc false
  use Tube.Bench.Carrier

  @impl true
  def listen(name, _dir) do
    {:ok, listener} = Elixir.Tube.listen([service: name] ++ options())
    {:ok, domid} = Elixir.Tube.domid()
    {listener, {domid, name}}
  end

  @impl true
  def accept(listener) do
    {:ok, tube} = Elixir.Tube.accept(listener, Carrier.limit())
    tube
  end

  @impl true
  def open({domid, name}) do
    {:ok, tube} = Elixir.Tube.open(domid, [service: name] ++ options())
    tube
  end

  @impl true
  def send(tube, data), do: Elixir.Tube.send(tube, data)

  @impl true
  def recv(tube), do: Elixir.Tube.recv(tube, Carrier.limit())

  @impl true
  def recv_many(tube), do: Elixir.Tube.recv_many(tube, 1024, Carrier.limit())

  @impl true
  def bulk_receive(_size), do: :recv_many

  @impl true
  def reply_receive, do: :active

  @impl true
  def active(tube, active), do: Elixir.Tube.setopts(tube, active: active)

  # The other end may have closed it first.
  @impl true
  def close(tube) do
    case Elixir.Tube.close(tube) do
      :ok -> :ok
      {:error, :closed} -> :ok
    end
  end

  @impl true
  def close_listener(listener), do: GenServer.stop(listener)

  defp options do
    [active: false, ring: Carrier.buffer(), timeout: Carrier.limit()]
  end
end

defmodule Tube.Bench.Carrier.Polling do
  @moduledoc false
  # A tube with busy-polling at both ends, in the process that waits for a message.
  use Tube.Bench.Carrier.Variant, Tube.Bench.Carrier.Tube

  alias Tube.Bench.Carrier

  # Longer than any round trip for which busy-polling is useful.
  @poll {:adaptive, 200}

  @impl true
  def accept(listener), do: polled(Carrier.Tube.accept(listener))
  @impl true
  def open(address), do: polled(Carrier.Tube.open(address))
  @impl true
  def reply_receive, do: :recv

  defp polled(tube) do
    :ok = Tube.setopts(tube, poll: @poll)
    tube
  end
end

defmodule Tube.Bench.Carrier.PollingActive do
  @moduledoc false
  # The same in active mode, where another process polls for the receiver of the messages.
  use Tube.Bench.Carrier.Variant, Tube.Bench.Carrier.Polling

  @impl true
  def reply_receive, do: :active
end

defmodule Tube.Bench.Carrier.Batches do
  @moduledoc false
  # A tube that sends many messages in one call.
  use Tube.Bench.Carrier.Variant, Tube.Bench.Carrier.Tube

  @doc "Number of messages in one call."
  def size, do: 1024

  @impl true
  def push(_tube, _payload, 0), do: :ok

  def push(tube, payload, left) do
    count = min(left, size())
    :ok = Tube.send_many(tube, List.duplicate(payload, count))
    push(tube, payload, left - count)
  end
end
