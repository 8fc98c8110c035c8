defmodule Tube.Connection.Link do
  @moduledoc false
  # The native link of a tube and its driver port: shared by the tip or mapped by the nock, started,
  # shut down, cut, freed.

  alias Tube.{Native, Options}

  @doc "Makes the tip's link. Returns what the nock and readers of the store need to know of it."
  @spec allocate(term, map, Options.t()) ::
          {:ok, Tube.t(), Tube.Handshake.refs()} | {:error, atom}
  def allocate(platform, spec, options) do
    order = order(options.ring)
    {nonce, ""} = Integer.parse(spec.nonce, 16)

    with {:ok, id, refs} <-
           Native.link_share(platform, spec.peer, order, order, nonce, options.max_message),
         {:ok, tube} <- port(id) do
      {order_tx, refs} = Map.pop!(refs, :order_tx)
      {order_rx, refs} = Map.pop!(refs, :order_rx)

      # The platform may have had room for less than the option asks for.
      shown = %{
        tx_ring_bytes: bytes(order_tx),
        rx_ring_bytes: bytes(order_rx),
        opened: System.os_time(:second)
      }

      {:ok, tube, Map.merge(refs, shown)}
    end
  end

  @doc "Makes the nock's link: maps the tip's rings."
  @spec map(term, map, Options.t()) :: {:ok, Tube.t()} | {:error, atom}
  def map(platform, spec, options) do
    {nonce, ""} = Integer.parse(spec.nonce, 16)
    %{peer: peer, tx_ring_ref: tx, rx_ring_ref: rx, event_channel: port} = spec

    with {:ok, id} <- Native.link_map(platform, peer, tx, rx, port, nonce, options.max_message),
         do: port(id)
  end

  defp port(id) do
    case Native.Driver.load() do
      :ok ->
        {:ok, handle(Native.Driver.open_link(id), id)}

      {:error, _reason} ->
        Native.link_free(id)
        {:error, :einval}
    end
  end

  # `%Tube{}`, spelled out: the struct belongs to the API, and nothing below the API depends on it. The
  # driver builds the same map for its messages (native/tube/src/driver/term.rs).
  defp handle(port, id), do: %{__struct__: :"Elixir.Tube", pid: self(), port: port, id: id}

  @doc "Starts the flow of data."
  @spec start(Tube.t(), pid, Native.mode()) :: :ok | {:error, atom}
  def start(tube, owner, mode), do: Native.Driver.start(tube.id, tube.port, self(), owner, mode)

  @doc "Ends our direction: no more is sent."
  @spec shutdown(Tube.t() | nil) :: :ok
  def shutdown(nil), do: :ok

  def shutdown(tube) do
    Native.shutdown(tube.id)
    :ok
  end

  @doc """
  Frees everything shared. The owner still gets what had arrived, from a private copy, and then `reason`.
  """
  @spec cut(Tube.t(), atom) :: :ok
  def cut(tube, reason) do
    reason = if reason in [:peer_domain_gone, :suspended], do: reason, else: :peer_down
    # A port that has ended has freed it already.
    _ = Native.Driver.cut(tube.port, reason)
    :ok
  end

  @doc "Closes the port, which frees the link."
  @spec free(Tube.t() | nil) :: :ok
  def free(nil), do: :ok

  def free(tube) do
    Port.close(tube.port)
    :ok
  rescue
    # Another process has closed it.
    ArgumentError -> :ok
  end

  @doc "The option `:active` as the driver takes it."
  @spec encode_active(boolean | :once | pos_integer) :: Native.Driver.active()
  def encode_active(true), do: -1
  def encode_active(false), do: 0
  def encode_active(:once), do: -2
  def encode_active(count), do: count

  @doc "The inverse of `encode_active/1`."
  @spec decode_active(integer) :: boolean | :once | pos_integer
  def decode_active(-1), do: true
  def decode_active(0), do: false
  def decode_active(-2), do: :once
  def decode_active(count), do: count

  defp bytes(order), do: Bitwise.bsl(4096, order)

  defp order(bytes), do: order(bytes, 0)
  defp order(4096, order), do: order
  defp order(bytes, order), do: order(div(bytes, 2), order + 1)
end
