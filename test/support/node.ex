defmodule Tube.Test.Node do
  @moduledoc """
  VMs that are nodes of distributed Erlang over tubes, each named after its domain: `a@dom5`.

  Tests control them over their standard streams like every `Tube.Test.VM`, so a test can break the
  connection between two nodes and still control both. In the lab the name of a node says in which
  guest it runs.
  """

  alias Tube.Test.{Lab, VM}
  alias Tube.Test.Node.Spare

  @cookie "tubes"
  # Longer than any node tries to connect.
  @limit 70_000

  @doc """
  Starts a node. Options beyond those of `VM.start/1`: `:cookie`, `:kernel`, a list of Erlang
  arguments such as `["-kernel", "net_ticktime", "4"]`, `:long` for a long name, and `:carriers`, by
  default `["tube"]`; for others `:env` must name their epmd (`Tube.Test.Loopback`). Starts no
  applications.
  """
  @spec start(keyword) :: VM.t()
  def start(opts) do
    name = if opts[:long], do: "-name", else: "-sname"

    args =
      ["-proto_dist" | opts[:carriers] || ["tube"]] ++
        ~w(-start_epmd false #{name} #{opts[:name]} -setcookie #{opts[:cookie] || @cookie}) ++
        with_setup_time(opts[:kernel] || [])

    own = [:name, :cookie, :kernel, :carriers, :long]
    # Outside of the lab only the name says which domain it is, as for a user's node.
    guest = if Lab.here?(), do: [domid: domid(opts[:name])], else: []
    VM.start([args: args, applications: []] ++ guest ++ Keyword.drop(opts, own))
  end

  @doc """
  Like `start/1`, for an ExUnit test: the node is killed when the test ends, because an orderly stop
  takes a second. In the lab this may return a node of an earlier test (`Tube.Test.Node.Spare`).
  """
  @spec start!(keyword) :: VM.t()
  def start!(opts) do
    [vm] = start_all!([opts])
    vm
  end

  @doc "Starts several nodes at once, which takes little longer than one."
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

  # OTP's seven seconds for a connection may be too short in the lab, which is emulated.
  defp with_setup_time(kernel) do
    if Lab.here?() and "net_setuptime" not in kernel,
      do: kernel ++ ~w(-kernel net_setuptime 60),
      else: kernel
  end

  @doc "Connects `vm` to `node`."
  @spec connect(VM.t(), node) :: boolean | :ignored
  def connect(vm, node), do: VM.call(vm, :net_kernel, :connect_node, [node], @limit)

  @doc "The domain in a node's name."
  @spec domid(node) :: non_neg_integer
  def domid(node) do
    [_name, "dom" <> rest] = node |> Atom.to_string() |> String.split("@")
    {domid, _machine} = Integer.parse(rest)
    domid
  end
end
