defmodule Tube.Test.Node do
  @moduledoc """
  VMs that are nodes of distributed Erlang over tubes, each named as its domain: `a@dom5`.

  They are driven over their standard streams like all of `Tube.Test.VM`, so a connection between
  nodes can be broken without losing hold of either. In the lab a node's VM is in the guest that its
  name says.
  """

  alias Tube.Test.{Lab, VM}
  alias Tube.Test.Node.Spare

  @cookie "tubes"
  # More than any node takes to give up.
  @limit 70_000

  @doc """
  Starts a node. Options beyond those of `VM.start/1`: `:cookie`, `:kernel`, a list of Erlang
  arguments such as `["-kernel", "net_ticktime", "4"]`, `:long` for a name of that kind, and
  `:carriers`, `["tube"]` unless told; for others `:env` must say where their epmd is
  (`Tube.Test.Loopback`). Applications are not started.
  """
  @spec start(keyword) :: VM.t()
  def start(opts) do
    name = if opts[:long], do: "-name", else: "-sname"

    args =
      ["-proto_dist" | opts[:carriers] || ["tube"]] ++
        ~w(-start_epmd false #{name} #{opts[:name]} -setcookie #{opts[:cookie] || @cookie}) ++
        patience(opts[:kernel] || [])

    own = [:name, :cookie, :kernel, :carriers, :long]
    # Locally the name alone is to say which domain it is.
    guest = if Lab.here?(), do: [domid: domid(opts[:name])], else: []
    VM.start([args: args, applications: []] ++ guest ++ Keyword.drop(opts, own))
  end

  @doc """
  `start/1` in an ExUnit test: the node is killed when the test is over. To stop in good order takes a
  node a second. In the lab it may be one that an earlier test has had (`Tube.Test.Node.Spare`).
  """
  @spec start!(keyword) :: VM.t()
  def start!(opts) do
    [vm] = start_all!([opts])
    vm
  end

  @doc "Several at once, which takes little longer than one."
  @spec start_all!([keyword]) :: [VM.t()]
  def start_all!(list) do
    vms =
      list
      |> Enum.map(&Task.async(fn -> Spare.take(&1) || Spare.mark(start(&1)) end))
      |> Task.await_many(:infinity)

    for {vm, opts} <- Enum.zip(vms, list),
        do: ExUnit.Callbacks.on_exit(fn -> Spare.keep(vm, opts) end)

    vms
  end

  # Seven seconds for a connection may be too few where all is emulated.
  defp patience(kernel) do
    if Lab.here?() and "net_setuptime" not in kernel,
      do: kernel ++ ~w(-kernel net_setuptime 60),
      else: kernel
  end

  @doc "Connects `vm` to `node`."
  @spec connect(VM.t(), node) :: boolean | :ignored
  def connect(vm, node), do: VM.call(vm, :net_kernel, :connect_node, [node], @limit)

  @doc "The domain that a node's name says."
  @spec domid(node) :: non_neg_integer
  def domid(node) do
    [_name, "dom" <> rest] = node |> Atom.to_string() |> String.split("@")
    {domid, _machine} = Integer.parse(rest)
    domid
  end
end
