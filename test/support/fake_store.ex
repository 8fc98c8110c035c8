defmodule Tube.Test.FakeStore do
  @moduledoc false
  # A store whose bytes the test controls: the far end of a client's connection over a unix socket,
  # and the client's transport for it.

  import ExUnit.Assertions

  alias Tube.Xenstore.Client
  alias Tube.Xenstore.Wire.Codec

  defmodule Socket do
    @moduledoc false
    @behaviour Tube.Xenstore.Transport

    @impl true
    def open(path), do: :gen_tcp.connect({:local, path}, 0, [:binary, active: true])

    @impl true
    def send(socket, packet), do: :gen_tcp.send(socket, packet)

    @impl true
    def event(socket, {:tcp, socket, bytes}), do: {:data, bytes}
    def event(socket, {:tcp_closed, socket}), do: {:closed, :normal}
    def event(_socket, _message), do: :other

    @impl true
    def max_payload(_socket), do: 4096

    @impl true
    def close(socket), do: :gen_tcp.close(socket)
  end

  @doc "A connected client, not linked to the test, and the store's end of its connection."
  @spec start(module()) :: {client :: pid(), store :: :gen_tcp.socket()}
  def start(transport \\ Socket) do
    path =
      Path.join(
        System.tmp_dir!(),
        "tube-store-#{System.pid()}-#{System.unique_integer([:positive])}"
      )

    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: {:local, path}])
    {:ok, client} = Client.start_link({transport, path})
    Process.unlink(client)
    {:ok, store} = :gen_tcp.accept(listener, 5_000)
    :gen_tcp.close(listener)
    File.rm!(path)
    {client, store}
  end

  @doc "An ExUnit set-up function: `:client`, `:store`, and `:monitor` of the client."
  @spec connected(map()) :: map()
  def connected(_context \\ %{}) do
    {client, store} = start()
    ExUnit.Callbacks.on_exit(fn -> Process.exit(client, :kill) end)
    monitor = Process.monitor(client)
    # Once it has replied, it has the monitor for certain.
    %{} = :sys.get_state(client)
    %{client: client, store: store, monitor: monitor}
  end

  @doc "The next request."
  @spec request(:gen_tcp.socket(), timeout()) :: Codec.packet()
  def request(store, timeout \\ 5_000) do
    {:ok, <<_type_id_tx::binary-12, size::32-native>> = header} =
      :gen_tcp.recv(store, 16, timeout)

    payload =
      if size == 0 do
        ""
      else
        {:ok, payload} = :gen_tcp.recv(store, size, timeout)
        payload
      end

    {:ok, [packet], ""} = Codec.feed("", header <> payload)
    packet
  end

  @doc "The next request, which must be of that type. Returns its req_id, tx_id and payload."
  @spec request(:gen_tcp.socket(), Codec.type(), timeout()) :: {integer(), integer(), binary()}
  def request(store, type, timeout) do
    {got, id, tx, payload} = request(store, timeout)
    assert got == type
    {id, tx, payload}
  end

  @doc "Does no request arrive?"
  @spec silent?(:gen_tcp.socket(), timeout()) :: boolean()
  def silent?(store, timeout \\ 50), do: :gen_tcp.recv(store, 1, timeout) == {:error, :timeout}

  @doc "Replies to the next request of that type. Returns its tx_id and payload."
  @spec reply(:gen_tcp.socket(), Codec.type(), binary()) :: {integer(), binary()}
  def reply(store, type, payload \\ "OK\0") do
    {id, tx, requested} = request(store, type, 5_000)
    send_packet(store, type, id, payload, tx)
    {tx, requested}
  end

  @doc "Replies to the next request of that type with an error."
  @spec refuse(:gen_tcp.socket(), Codec.type(), String.t()) :: {integer(), binary()}
  def refuse(store, type, name) do
    {id, tx, requested} = request(store, type, 5_000)
    send_packet(store, :error, id, name <> "\0", tx)
    {tx, requested}
  end

  @doc "Sends one packet."
  @spec send_packet(:gen_tcp.socket(), Codec.type(), integer(), binary(), integer()) :: :ok
  def send_packet(store, type, id, payload, tx \\ 0),
    do: :gen_tcp.send(store, packet(type, id, payload, tx))

  @doc "The bytes of one packet."
  @spec packet(Codec.type(), integer(), binary(), integer()) :: binary()
  def packet(type, id, payload, tx \\ 0) do
    {:ok, bytes} = Codec.encode(type, id, tx, payload)
    bytes
  end

  @doc "The bytes of a watch event."
  @spec watch_event(String.t(), String.t()) :: binary()
  def watch_event(path, token), do: packet(:watch_event, 0, path <> "\0" <> token <> "\0")
end
