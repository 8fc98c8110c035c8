defmodule Tube.Bench.Carrier.Like do
  @moduledoc false
  # A carrier that does one or two things otherwise than another: `use Carrier.Like, Other`.

  defmacro __using__(other) do
    quote bind_quoted: [other: other] do
      @behaviour Tube.Bench.Carrier

      for {name, arity} <- Tube.Bench.Carrier.behaviour_info(:callbacks) do
        arguments = Macro.generate_arguments(arity, __MODULE__)
        @impl true
        defdelegate unquote(name)(unquote_splicing(arguments)), to: other
      end

      defoverridable Tube.Bench.Carrier
    end
  end
end

defmodule Tube.Bench.Carrier.Polling do
  @moduledoc false
  # A tube whose ends look for messages, each in the process that waits for one.
  use Tube.Bench.Carrier.Like, Tube.Bench.Carrier.Tube

  alias Tube.Bench.Carrier

  # Longer than any answer takes that is worth waiting for in this way.
  @poll {:adaptive, 200}

  @impl true
  def accept(listener), do: polled(Carrier.Tube.accept(listener))
  @impl true
  def open(address), do: polled(Carrier.Tube.open(address))
  @impl true
  def answer, do: :recv

  defp polled(tube) do
    :ok = Tube.setopts(tube, poll: @poll)
    tube
  end
end

defmodule Tube.Bench.Carrier.PollingActive do
  @moduledoc false
  # The same, with a process that looks on behalf of the one that is sent the message.
  use Tube.Bench.Carrier.Like, Tube.Bench.Carrier.Polling

  @impl true
  def answer, do: :active
end

defmodule Tube.Bench.Carrier.Batches do
  @moduledoc false
  # A tube that is given many messages in one call.
  use Tube.Bench.Carrier.Like, Tube.Bench.Carrier.Tube

  @doc "Messages of one call, for all who send many."
  def size, do: 1024

  @impl true
  def push(_tube, _payload, 0), do: :ok

  def push(tube, payload, left) do
    count = min(left, size())
    :ok = Tube.send_many(tube, List.duplicate(payload, count))
    push(tube, payload, left - count)
  end
end

defmodule Tube.Bench.Carrier.Framed do
  @moduledoc false
  # A socket without `packet: 4`, for whoever puts many messages into one call: the sender makes the same
  # headers, the receiver takes what is there and splits it. What it has of it is in its dictionary.
  alias Tube.Bench.Carrier

  defmacro __using__(other) do
    quote do
      use Tube.Bench.Carrier.Like, unquote(other)
      alias Tube.Bench.Carrier.Framed

      @impl true
      def accept(listener), do: Framed.raw(unquote(other).accept(listener))
      @impl true
      def open(address), do: Framed.raw(unquote(other).open(address))
      @impl true
      def quickest(_size), do: :recv_many
      @impl true
      defdelegate send(socket, data), to: Framed
      @impl true
      defdelegate push(socket, payload, left), to: Framed
      @impl true
      def recv(socket), do: Framed.recv(socket, &Framed.read/1)
      @impl true
      def recv_many(socket), do: Framed.recv_many(socket, &Framed.read/1)
    end
  end

  def raw(socket) do
    :ok = :inet.setopts(socket, packet: :raw)
    socket
  end

  def send(socket, data), do: :gen_tcp.send(socket, framed(data))

  def push(_socket, _payload, 0), do: :ok

  def push(socket, payload, left) do
    count = min(left, Carrier.Batches.size())
    :ok = :gen_tcp.send(socket, List.duplicate(framed(payload), count))
    push(socket, payload, left - count)
  end

  @doc "One message. `read` takes what the socket has."
  def recv(socket, read) do
    with {:ok, [message | others]} <- recv_many(socket, read) do
      Process.put({__MODULE__, socket, :messages}, others)
      {:ok, message}
    end
  end

  @doc "The messages that are there, one at least."
  def recv_many(socket, read) do
    case Process.put({__MODULE__, socket, :messages}, []) do
      none when none in [nil, []] -> more(socket, read)
      messages -> {:ok, messages}
    end
  end

  def read(socket), do: :gen_tcp.recv(socket, 0, Carrier.limit())

  # The pieces of a long message are put together once, when all of it is there.
  defp more(socket, read) do
    with {:ok, bytes} <- read.(socket) do
      case Process.get({__MODULE__, socket, :rest}, {[], 0, 0}) do
        {pieces, have, want} when have + byte_size(bytes) < want ->
          rest = {[bytes | pieces], have + byte_size(bytes), want}
          Process.put({__MODULE__, socket, :rest}, rest)
          more(socket, read)

        {[], 0, 0} ->
          split(bytes, [], socket, read)

        {pieces, _have, _want} ->
          [bytes | pieces] |> Enum.reverse() |> IO.iodata_to_binary() |> split([], socket, read)
      end
    end
  end

  defp split(<<size::32, message::binary-size(size), others::binary>>, messages, socket, read),
    do: split(others, [message | messages], socket, read)

  defp split(rest, messages, socket, read) do
    Process.put({__MODULE__, socket, :rest}, rest(rest))
    if messages == [], do: more(socket, read), else: {:ok, Enum.reverse(messages)}
  end

  defp rest(""), do: {[], 0, 0}
  defp rest(<<size::32, _::binary>> = bytes), do: {[bytes], byte_size(bytes), size + 4}
  defp rest(bytes), do: {[bytes], byte_size(bytes), 4}

  @doc "A message with its header."
  def framed(data), do: [<<byte_size(data)::32>>, data]
end

defmodule Tube.Bench.Carrier.FramedLoopback do
  @moduledoc false
  use Tube.Bench.Carrier.Framed, Tube.Bench.Carrier.Loopback
end

defmodule Tube.Bench.Carrier.FramedUnix do
  @moduledoc false
  use Tube.Bench.Carrier.Framed, Tube.Bench.Carrier.Unix
end
