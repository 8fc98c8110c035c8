defmodule Tube.Bench.Carrier do
  @moduledoc false
  # What a case asks of a link, so that the same code drives a tube and its baselines.
  # All of it runs in the two VMs that are measured.

  @type address :: term
  @type listener :: term
  @type link :: term

  @doc "Listens; the address is what `open/1` wants in the other VM."
  @callback listen(name :: String.t(), dir :: Path.t()) :: {listener, address}
  @callback accept(listener) :: link
  @callback open(address) :: link
  @callback send(link, binary) :: :ok
  @doc "The same message, so many times."
  @callback push(link, binary, non_neg_integer) :: :ok
  @doc "One message; the link is passive."
  @callback recv(link) :: {:ok, binary} | {:error, :closed}
  @doc "The messages that are there; the link is passive."
  @callback recv_many(link) :: {:ok, [binary, ...]} | {:error, :closed}
  @doc "How whoever wants speed takes messages of `size` bytes: in batches or as deliveries."
  @callback quickest(size :: pos_integer) :: :recv_many | :active
  @doc "How whoever wants a quick answer waits for it."
  @callback answer() :: :recv | :active
  @doc "`true`, `false`, or how many messages to deliver before `{passive, link}` comes."
  @callback active(link, boolean | pos_integer) :: :ok
  @callback close(link) :: :ok
  @callback close_listener(listener) :: :ok

  # Every wait ends: a link that stalls is an error, not a long measurement.
  @doc "Milliseconds that any single step may take."
  def limit, do: 20_000

  # Equal for all: what a socket keeps in the kernel a tube keeps in its ring.
  @doc "Bytes of buffer for each direction."
  def buffer, do: 1_048_576

  # Made in each carrier, so that its send is called as a program calls it, and not looked up by
  # name for each message: that would take a good part of the time of the quickest of them.
  defmacro __using__(_opts) do
    quote do
      @behaviour Tube.Bench.Carrier
      alias Tube.Bench.Carrier

      @impl true
      def push(_link, _payload, 0), do: :ok

      def push(link, payload, left) do
        :ok = __MODULE__.send(link, payload)
        push(link, payload, left - 1)
      end
    end
  end
end

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
  def quickest(_size), do: :recv_many

  @impl true
  def answer, do: :active

  @impl true
  def active(tube, active), do: Elixir.Tube.setopts(tube, active: active)

  # The other end may have been first.
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

defmodule Tube.Bench.Carrier.Socket do
  @moduledoc false
  # gen_tcp as a good user sets it up: messages, no Nagle, large buffers in the kernel and in
  # the driver. The driver's queue keeps its default marks: a longer one makes 50 senders slower.
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

      # Measured: at 1 MiB one recv after another is twice as quick as deliveries, below it is slower.
      @impl true
      def quickest(size) when size > 65_536, do: :recv_many
      def quickest(_size), do: :active
      @impl true
      def answer, do: :active
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
  use Tube.Bench.Carrier.Socket

  @loopback {127, 0, 0, 1}

  @impl true
  def listen(_name, _dir) do
    options = [ip: @loopback, backlog: 128, reuseaddr: true] ++ Carrier.Socket.options()
    {:ok, listener} = :gen_tcp.listen(0, options)
    {:ok, port} = :inet.port(listener)
    {listener, port}
  end

  @impl true
  def open(port) do
    {:ok, socket} = :gen_tcp.connect(@loopback, port, Carrier.Socket.options(), Carrier.limit())

    socket
  end
end

defmodule Tube.Bench.Carrier.Unix do
  @moduledoc false
  use Tube.Bench.Carrier.Socket

  @impl true
  def listen(name, dir) do
    path = Path.join(dir, name <> ".sock")
    options = [ifaddr: {:local, path}, backlog: 128] ++ without_tcp(Carrier.Socket.options())
    {:ok, listener} = :gen_tcp.listen(0, options)
    {listener, path}
  end

  @impl true
  def open(path) do
    options = without_tcp(Carrier.Socket.options())
    {:ok, socket} = :gen_tcp.connect({:local, path}, 0, options, Carrier.limit())
    socket
  end

  # There is no Nagle to switch off on a unix socket, and asking is an error.
  defp without_tcp(options), do: List.delete(options, {:nodelay, true})
end
