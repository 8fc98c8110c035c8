defmodule Tube.Test.Node.Spare do
  @moduledoc """
  Nodes that one test of the lab has no more use for, kept for the next one that wants the same: what
  `Tube.Test.VM.Spare` is for VMs that are none, for the same reason.

  A node holds its domain for as long as it lives, so there is at most one of a domain, and it makes way for
  whatever else is started there.
  """

  alias Tube.Test.{Eventually, Lab, VM}
  alias Tube.Test.Node, as: Peer

  # What this one was at its start. Whatever is not among that goes.
  @start {__MODULE__, :start}
  # Of no account to who comes next.
  @own [:run_dir, :modules]

  @doc "A node of that name that was kept, or nil."
  @spec take(keyword) :: VM.t() | nil
  def take(opts) do
    if Lab.here?() do
      domid = Peer.domid(opts[:name])

      case Agent.get_and_update(agent(), &Map.pop(&1, domid)) do
        nil ->
          nil

        {kind, vm} ->
          if kind == kind(opts) and VM.alive?(vm), do: vm, else: kill(vm)
      end
    end
  end

  @doc "Keeps a node that was started with `opts`, if it can be of use; otherwise kills it."
  @spec keep(VM.t(), keyword) :: :ok
  def keep(vm, opts) do
    if Lab.here?() and VM.alive?(vm) and emptied?(vm),
      do: Agent.update(agent(), &Map.put(&1, vm.domid, {kind(opts), vm})),
      else: VM.kill9(vm)
  end

  @doc "Ends what is kept of a domain: somebody else is to have that."
  @spec make_way(non_neg_integer | nil) :: :ok
  def make_way(domid) do
    with true <- Lab.here?(),
         {_kind, vm} <- Agent.get_and_update(agent(), &Map.pop(&1, domid)),
         do: kill(vm)

    :ok
  end

  @doc "Remembers what belongs to a node that has just been started."
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

  # It has no connection, no process with a name of its own, no application but the kernel's two.
  defp emptied?(vm) do
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
    _kind, _unwell -> false
  end

  # Of no process of a test's: they come and go.
  defp agent do
    case Agent.start(fn -> %{} end, name: __MODULE__) do
      {:ok, agent} -> agent
      {:error, {:already_started, agent}} -> agent
    end
  end
end
