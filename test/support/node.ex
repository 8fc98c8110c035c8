defmodule Tube.Test.Node do
  @moduledoc """
  VMs that are nodes of distributed Erlang over tubes, each named as its domain: `a@dom5`.

  They are driven over their standard streams like all of `Tube.Test.VM`, so a connection between
  nodes can be broken without losing hold of either.
  """

  alias Tube.Test.VM

  @cookie "tubes"

  @doc """
  Starts a node. Options beyond those of `VM.start/1`: `:cookie`, `:kernel`, a list of Erlang
  arguments such as `["-kernel", "net_ticktime", "4"]`, and `:carriers`, `["tube"]` unless told; for others
  `:env` must say where their epmd is (`Tube.Test.Loopback`). Applications are not started.
  """
  @spec start(keyword) :: VM.t()
  def start(opts) do
    args =
      ["-proto_dist" | opts[:carriers] || ["tube"]] ++
        ~w(-start_epmd false -sname #{opts[:name]} -setcookie #{opts[:cookie] || @cookie}) ++
        (opts[:kernel] || [])

    own = [:name, :cookie, :kernel, :carriers]
    VM.start([args: args, applications: []] ++ Keyword.drop(opts, own))
  end

  @doc """
  `start/1` in an ExUnit test: the node is killed when the test is over. To stop in good order takes a
  node a second.
  """
  @spec start!(keyword) :: VM.t()
  def start!(opts) do
    vm = start(opts)
    ExUnit.Callbacks.on_exit(fn -> VM.kill9(vm) end)
    vm
  end

  @doc "Connects `vm` to `node`."
  @spec connect(VM.t(), node) :: boolean | :ignored
  def connect(vm, node), do: VM.call(vm, :net_kernel, :connect_node, [node])
end
