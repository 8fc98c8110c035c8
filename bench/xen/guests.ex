defmodule Tube.Bench.Xen.Guests do
  @moduledoc false
  # Prepares the guests of the lab for this bench.

  alias Tube.Test.Lab

  @domids [5, 7]
  # A tube with two rings of 1 MiB has 514 pages, a libxenvchan 513. Linux allows 1,024 pages in all
  # by default, which is not enough while one link closes and the next one opens.
  @pages 8192

  @doc "The address of a guest on the bridge of domain 0."
  @spec address(pos_integer) :: :inet.ip4_address()
  def address(domid), do: {10, 0, 2, 100 + domid}

  @doc """
  Raises the limit on shared pages, adds host names for nodes, starts epmd for connections over
  TCP, and pins each guest to one of the two processors: if both shared one, the results would
  depend on Xen's scheduler.
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
