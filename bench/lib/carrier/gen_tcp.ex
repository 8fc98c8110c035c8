defmodule Tube.Bench.Carrier.GenTcp do
  @moduledoc false
  # gen_tcp with good options: messages, no Nagle, large buffers in the kernel and in the driver.
  # The watermarks of the driver's queue keep their defaults: a longer queue slows down 50 senders.
  alias Tube.Bench.Carrier

  @spec options() :: [:gen_tcp.option()]
  def options do
    size = Carrier.buffer()

    [:binary, packet: 4, active: false, nodelay: true] ++
      [sndbuf: size, recbuf: size, buffer: size]
  end

  defmacro __using__(_opts) do
    quote do
      use Tube.Bench.Carrier

      @impl true
      def accept(listener) do
        {:ok, socket} = :gen_tcp.accept(listener, Carrier.limit())
        socket
      end

      @impl true
      def send(socket, data), do: :gen_tcp.send(socket, data)
      @impl true
      def recv(socket), do: :gen_tcp.recv(socket, 0, Carrier.limit())
      @impl true
      def recv_many(socket) do
        with {:ok, message} <- recv(socket), do: {:ok, [message]}
      end

      # Measured: recv is twice as fast as active mode for 1 MiB, and slower for small messages.
      @impl true
      def bulk_receive(size) when size > 65_536, do: :recv_many
      def bulk_receive(_size), do: :active
      @impl true
      def reply_receive, do: :active
      @impl true
      def active(socket, active), do: :inet.setopts(socket, active: active)
      @impl true
      def close(socket), do: :gen_tcp.close(socket)
      @impl true
      def close_listener(listener), do: :gen_tcp.close(listener)
    end
  end
end

defmodule Tube.Bench.Carrier.Loopback do
  @moduledoc false
  use Tube.Bench.Carrier.GenTcp

  @loopback {127, 0, 0, 1}

  @impl true
  def listen(_name, _dir) do
    options = [ip: @loopback, backlog: 128, reuseaddr: true] ++ Carrier.GenTcp.options()
    {:ok, listener} = :gen_tcp.listen(0, options)
    {:ok, port} = :inet.port(listener)
    {listener, port}
  end

  @impl true
  def open(port) do
    {:ok, socket} = :gen_tcp.connect(@loopback, port, Carrier.GenTcp.options(), Carrier.limit())

    socket
  end
end

defmodule Tube.Bench.Carrier.Unix do
  @moduledoc false
  use Tube.Bench.Carrier.GenTcp

  @impl true
  def listen(name, dir) do
    path = Path.join(dir, name <> ".sock")
    options = [ifaddr: {:local, path}, backlog: 128] ++ without_tcp(Carrier.GenTcp.options())
    {:ok, listener} = :gen_tcp.listen(0, options)
    {listener, path}
  end

  @impl true
  def open(path) do
    options = without_tcp(Carrier.GenTcp.options())
    {:ok, socket} = :gen_tcp.connect({:local, path}, 0, options, Carrier.limit())
    socket
  end

  # A unix socket rejects this option.
  defp without_tcp(options), do: List.delete(options, {:nodelay, true})
end
