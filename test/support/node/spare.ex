defmodule Tube.Test.Node.Spare do
  @moduledoc """
  Nodes that tests of the lab share one after another, as `Tube.Test.VM.Spare` does for other VMs.

  A node holds its domain as long as it runs, so there is at most one per domain, and it is killed
  when something else is to start there.
  """

  alias Tube.Test.{Eventually, Lab, Table, VM}
  alias Tube.Test.Node, as: Peer

  # The key of the names and settings that a node starts with. A reset removes all others.
  @start {__MODULE__, :start}
  # Options that do not matter to the next test.
  @own [:run_dir, :modules]

  @doc "Returns a kept node for these options, or nil."
  @spec take(keyword) :: VM.t() | nil
  def take(opts) do
    if Lab.here?() do
      domid = Peer.domid(opts[:name])

      case Table.get_and_update(__MODULE__, &Map.pop(&1, domid)) do
        nil ->
          nil

        {kind, vm} ->
          if kind == kind(opts) and VM.alive?(vm), do: vm, else: kill(vm)
      end
    end
  end

  @doc "Keeps a node that was started with `opts`, if other tests can use it; otherwise kills it."
  @spec keep(VM.t(), keyword) :: :ok
  def keep(vm, opts) do
    if Lab.here?() and VM.alive?(vm) and reset?(vm),
      do: Table.update(__MODULE__, &Map.put(&1, vm.domid, {kind(opts), vm})),
      else: VM.kill9(vm)
  end

  @doc "Kills the kept node of a domain, so that something else can start there."
  @spec make_way(non_neg_integer | nil) :: :ok
  def make_way(domid) do
    with true <- Lab.here?(),
         {_kind, vm} <- Table.get_and_update(__MODULE__, &Map.pop(&1, domid)),
         do: kill(vm)

    :ok
  end

  @doc "Records the names and settings of a node that has just started."
  @spec mark(VM.t()) :: VM.t()
  def mark(vm) do
    names = VM.call(vm, :erlang, :registered, [])
    settings = VM.call(vm, :application, :get_all_env, [:kernel])
    :ok = VM.call(vm, :persistent_term, :put, [@start, {names, settings}])
    vm
  end

  defp kind(opts), do: opts |> Keyword.drop(@own) |> Enum.sort()

  defp kill(vm) do
    VM.kill9(vm)
    nil
  end

  # Removes connections, registered processes, and all applications but kernel and stdlib.
  defp reset?(vm) do
    :ok = VM.end_processes(vm)

    for {app, _text, _version} <- VM.call(vm, :application, :which_applications, []),
        app not in [:kernel, :stdlib],
        do: VM.call(vm, :application, :stop, [app])

    {names, settings} = VM.call(vm, :persistent_term, :get, [@start])

    for {key, _value} <- VM.call(vm, :application, :get_all_env, [:kernel]) -- settings,
        do: VM.call(vm, :application, :unset_env, [:kernel, key])

    for {key, value} <- settings,
        do: VM.call(vm, :application, :set_env, [:kernel, key, value])

    for name <- VM.call(vm, :erlang, :registered, []) -- names,
        pid when is_pid(pid) <- [VM.call(vm, :erlang, :whereis, [name])],
        do: VM.call(vm, :erlang, :exit, [pid, :kill])

    for node <- VM.call(vm, :erlang, :nodes, [:connected]),
        do: VM.call(vm, :erlang, :disconnect_node, [node])

    Eventually.true!(fn ->
      VM.call(vm, :erlang, :nodes, [:connected]) == [] and
        VM.call(vm, Tube.Native, :live_counts, []).links == 0
    end)

    true
  catch
    _kind, _reason -> false
  end
end
