defmodule Tube.Bench.Carrier do
  @moduledoc false
  # The operations on a link, so that the same code drives a tube and its baselines. They run in the
  # two VMs that are measured.

  @type address :: term
  @type listener :: term
  @type link :: term

  @doc "Listens. `open/1` in the other VM takes the address."
  @callback listen(name :: String.t(), dir :: Path.t()) :: {listener, address}
  @callback accept(listener) :: link
  @callback open(address) :: link
  @callback send(link, binary) :: :ok
  @doc "Sends a message this many times."
  @callback push(link, binary, non_neg_integer) :: :ok
  @doc "Receives one message on a passive link."
  @callback recv(link) :: {:ok, binary} | {:error, :closed}
  @doc "Receives the available messages on a passive link."
  @callback recv_many(link) :: {:ok, [binary, ...]} | {:error, :closed}
  @doc "The fastest way to receive messages of `size` bytes: in batches or in active mode."
  @callback bulk_receive(size :: pos_integer) :: :recv_many | :active
  @doc "The fastest way to wait for a reply."
  @callback reply_receive() :: :recv | :active
  @doc "`true`, `false`, or the number of messages to deliver before `{passive, link}`."
  @callback active(link, boolean | pos_integer) :: :ok
  @callback close(link) :: :ok
  @callback close_listener(listener) :: :ok

  # A link that stalls is an error, not a long measurement.
  @doc "Maximum duration of a step in milliseconds."
  def limit, do: 20_000

  # Equal for all: a socket has its buffer in the kernel, a tube has its ring.
  @doc "Bytes of buffer in each direction."
  def buffer, do: 1_048_576

  # Defined in each carrier, so that it calls `send` directly, as a program does. A dynamic call for
  # each message would cost a large part of the time of the fastest carriers.
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
