defmodule Tube.Bench.Carrier.Framed do
  @moduledoc false
  # A socket without `packet: 4`, so that one call can send many messages: the sender adds the same
  # headers, and the receiver splits all available bytes. The process dictionary has the unread
  # rest.
  alias Tube.Bench.Carrier

  defmacro __using__(other) do
    quote do
      use Tube.Bench.Carrier.Variant, unquote(other)
      alias Tube.Bench.Carrier.Framed

      @impl true
      def accept(listener), do: Framed.raw(unquote(other).accept(listener))
      @impl true
      def open(address), do: Framed.raw(unquote(other).open(address))
      @impl true
      def bulk_receive(_size), do: :recv_many
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

  @doc "Receives one message. `read` reads the available bytes."
  def recv(socket, read) do
    with {:ok, [message | others]} <- recv_many(socket, read) do
      Process.put({__MODULE__, socket, :messages}, others)
      {:ok, message}
    end
  end

  @doc "Receives the available messages, at least one."
  def recv_many(socket, read) do
    case Process.put({__MODULE__, socket, :messages}, []) do
      none when none in [nil, []] -> more(socket, read)
      messages -> {:ok, messages}
    end
  end

  def read(socket), do: :gen_tcp.recv(socket, 0, Carrier.limit())

  # Joins the pieces of a long message once, when it is complete.
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
