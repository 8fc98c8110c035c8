defmodule Tube.Bench.Carrier.Netfront do
  @moduledoc false
  # gen_tcp from guest to guest: netfront, domain 0's bridge, netfront. The kernel sets the sizes of its
  # own buffers better than anybody who names one; what OTP reads at once makes the difference.
  use Tube.Bench.Carrier.Socket

  alias Tube.Bench.Xen.Guests

  @buffer 262_144

  @doc "Bytes that are read at once, here and by nodes."
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
