defmodule Tube.Test.Node do
  @moduledoc """
  VMs that are nodes of distributed Erlang over tubes, each named as its domain: `a@dom5`.

  They are driven over their standard streams like all of `Tube.Test.VM`, so a connection between
  nodes can be broken without losing hold of either.
  """

  alias Tube.Test.VM

  @cookie "tubes"

  @doc """
  Starts a node. Options beyond those of `VM.start!/1`: `:cookie`, and `:kernel`, a list of Erlang
  arguments such as `["-kernel", "net_ticktime", "4"]`. Applications are not started.
  """
  @spec start!(keyword) :: VM.t()
  def start!(opts) do
    [name, "dom" <> domid] = String.split("#{opts[:name]}", "@")

    args =
      ~w(-proto_dist tube -start_epmd false -sname #{name}@dom#{domid}) ++
        ["-setcookie", opts[:cookie] || @cookie | opts[:kernel] || []]

    VM.start!([args: args, applications: []] ++ Keyword.drop(opts, [:name, :cookie, :kernel]))
  end

  @doc "Connects `vm` to `node`."
  @spec connect(VM.t(), node) :: boolean | :ignored
  def connect(vm, node), do: VM.call(vm, :net_kernel, :connect_node, [node])
end
