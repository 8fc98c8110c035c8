defmodule Tube.Bench.Carrier.Socket do
  @moduledoc false
  # OTP's `socket` module over a unix socket. It has neither packets nor active mode: each call
  # sends a header of four bytes and a message, and the receiver splits all available bytes.
  use Tube.Bench.Carrier
  alias Tube.Bench.Carrier.Framed

  # Maximum bytes of one read. Reads as large as the kernel's buffer were not faster.
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
  def bulk_receive(_size), do: :recv_many
  @impl true
  def reply_receive, do: :recv
  # No case needs it.
  @impl true
  def active(_socket, _active), do: raise("the socket module has no active mode")
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
