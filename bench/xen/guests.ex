defmodule Tube.Bench.Xen.Guests do
  @moduledoc false
  # What the lab's guests need for this bench beyond what they need for tests.

  alias Tube.Test.Lab

  @domids [5, 7]
  # A tube with rings of 1 MiB both ways has 514 pages and a libxenvchan 513, of which Linux allows 1,024
  # in all, and a link may be closing while the next one opens.
  @pages 8192

  @doc "The domains of the nodes."
  @spec domids() :: [pos_integer]
  def domids, do: @domids

  @doc "A guest's address on domain 0's bridge."
  @spec address(pos_integer) :: :inet.ip4_address()
  def address(domid), do: {10, 0, 2, 100 + domid}

  @doc """
  Room for rings, names for nodes, an epmd for those that are connected over TCP, and a processor for each
  guest: there are two, and where both guests happen to be on one the figures are of Xen's scheduler.
  """
  @spec prepare() :: :ok
  def prepare do
    hosts = for domid <- @domids, do: "#{:inet.ntoa(address(domid))} dom#{domid}\n"

    script = """
    set -e
    echo #{@pages} >/sys/module/xen_gntalloc/parameters/limit
    echo 'hosts: files' >/etc/nsswitch.conf
    printf '#{Enum.join(hosts)}' >>/etc/hosts
    epmd -daemon </dev/null >/dev/null 2>&1
    """

    for domid <- @domids, do: "" = Lab.sh(domid, script)
    pins = for {domid, cpu} <- Enum.with_index(@domids), do: "xl vcpu-pin #{domid} 0 #{cpu}\n"
    "" = Lab.sh(0, "set -e\n" <> Enum.join(pins))
    :ok
  end
end
