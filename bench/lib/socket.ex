defmodule Tube.Bench.Carrier.SocketUnix do
  @moduledoc false
  # OTP's `socket` module over a unix socket, as a good user sets it up. It has neither packets nor
  # deliveries: a header of four bytes goes with each message in the same call, and the receiver takes what
  # is there and splits it. What it has of it is in its dictionary.
  use Tube.Bench.Carrier
  alias Tube.Bench.Carrier.Framed

  # One read takes so much at most: as large as the kernel's buffer was no quicker.
  @read 262_144

  @impl true
  def listen(name, dir) do
    path = Path.join(dir, name <> ".socket")
    {:ok, listener} = :socket.open(:local, :stream)
    :ok = :socket.bind(listener, address(path))
    :ok = :socket.listen(listener, 128)
    {listener, path}
  end

  @impl true
  def accept(listener) do
    {:ok, socket} = :socket.accept(listener, Carrier.limit())
    buffers(socket)
  end

  @impl true
  def open(path) do
    {:ok, socket} = :socket.open(:local, :stream)
    :ok = :socket.connect(socket, address(path), Carrier.limit())
    buffers(socket)
  end

  @impl true
  def send(socket, data), do: :socket.send(socket, Framed.framed(data))

  @impl true
  def recv(socket), do: Framed.recv(socket, &read/1)
  @impl true
  def recv_many(socket), do: Framed.recv_many(socket, &read/1)
  @impl true
  def quickest(_size), do: :recv_many
  @impl true
  def answer, do: :recv
  # No case that needs them has it.
  @impl true
  def active(_socket, _active), do: raise("the socket module has no deliveries")
  @impl true
  def close(socket), do: :socket.close(socket)
  @impl true
  def close_listener(listener), do: :socket.close(listener)

  defp read(socket) do
    case :socket.recv(socket, 0, Carrier.limit()) do
      {:ok, bytes} -> {:ok, bytes}
      {:error, _reason} -> {:error, :closed}
    end
  end

  defp address(path), do: %{family: :local, path: path}

  defp buffers(socket) do
    for option <- [:sndbuf, :rcvbuf],
        do: :ok = :socket.setopt(socket, {:socket, option}, Carrier.buffer())

    :ok = :socket.setopt(socket, {:otp, :rcvbuf}, @read)
    socket
  end
end
