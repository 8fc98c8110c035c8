defmodule Tube.Bench.Carrier.Netfront do
  @moduledoc false
  # gen_tcp between guests: netfront, the bridge of domain 0, netfront. The kernel tunes its own
  # buffers better than fixed sizes do; the size of OTP's reads makes the difference.
  use Tube.Bench.Carrier.GenTcp

  alias Tube.Bench.Xen.Guests

  @buffer 262_144

  @doc "Bytes that a read returns at most, here and in nodes."
  def buffer, do: @buffer

  @impl true
  def listen(_name, _dir) do
    {:ok, domid} = Tube.domid()
    {:ok, listener} = :gen_tcp.listen(0, [backlog: 128, reuseaddr: true] ++ options())
    {:ok, port} = :inet.port(listener)
    {listener, {Guests.address(domid), port}}
  end

  @impl true
  def open({address, port}) do
    {:ok, socket} = :gen_tcp.connect(address, port, options(), Carrier.limit())
    socket
  end

  defp options, do: [:binary, packet: 4, active: false, nodelay: true, buffer: @buffer]
end
