defmodule Tube.Test.VM.Spare do
  @moduledoc """
  VMs that one test of the lab has no more use for, kept for the next one, and VMs that are started before
  a test asks for them.

  A VM in a guest takes many seconds to start, because every instruction there is emulated. So one
  that a test leaves alive is emptied, not ended: its processes of `Tube.Test.VM.run/3` are killed and
  the library is stopped, by which the domain is nobody's again. To the next test it is a new VM, but
  for the code that is loaded. And for one that a test kills another is started while that test goes on.
  """

  alias Tube.Test.{Eventually, Lab, VM}

  # Each is a process that has a VM, or is starting it, and gives it to who asks first.
  @limit 120_000

  @doc "Starts a VM for each of these domains, at once, if this is the lab; does not wait for them."
  @spec prepare([non_neg_integer]) :: :ok
  def prepare(domids) do
    if Lab.here?() do
      for domid <- domids do
        start = fn -> %{VM.start(domid: domid, applications: []) | shared: true} end
        put(domid, :started, spawn(fn -> start.() |> hand_over() end))
      end
    end

    :ok
  end

  @doc "A VM of that kind, with the library started, or nil: then there is none."
  @spec take(keyword) :: VM.t() | nil
  def take(opts) do
    with true <- shared?(opts),
         :ok <- Tube.Test.Node.Spare.make_way(opts[:domid]),
         :ok <- settle(opts[:domid]),
         keeper when keeper != nil <- pop(opts[:domid]),
         %VM{} = vm <- ask(keeper, :take) do
      {:ok, _started} = VM.call(vm, :application, :ensure_all_started, [:tube])
      vm
    else
      _none -> nil
    end
  end

  @doc """
  Keeps the VM that was started with `opts`, if it can be of use; otherwise stops it. It is emptied while
  others go on: see `settle/1`.
  """
  @spec keep(VM.t(), keyword) :: :ok
  def keep(vm, opts) do
    if shared?(opts) and VM.alive?(vm),
      do:
        put(
          vm.domid,
          :kept,
          spawn(fn -> if emptied?(vm), do: hand_over(vm), else: VM.stop(vm) end)
        ),
      else: VM.stop(vm)
  end

  @doc "Waits until no VM that is kept has the domain any more."
  @spec settle(non_neg_integer | nil) :: :ok
  def settle(domid) do
    if Lab.here?() do
      kept = for {:kept, keeper} <- Agent.get(agent(), &Map.get(&1, domid, [])), do: keeper
      for keeper <- kept, do: ask(keeper, :settled)
    end

    :ok
  end

  @doc "A VM was killed: starts another one for the tests to come, if it was one that they share."
  @spec replace(VM.t()) :: :ok
  def replace(vm), do: if(vm.shared, do: prepare([vm.domid]), else: :ok)

  # Whatever else was asked for, another VM need not have.
  @doc "Whether tests share VMs that are started with these options."
  @spec shared?(keyword) :: boolean
  def shared?(opts), do: Lab.here?() and Keyword.keys(opts) -- [:run_dir, :domid] == []

  defp emptied?(vm) do
    :ok = VM.end_processes(vm)
    :ok = VM.call(vm, :application, :stop, [:tube])
    Eventually.true!(fn -> VM.call(vm, Tube.Native, :live_counts, []).links == 0 end)
    true
  catch
    _kind, _unwell -> false
  end

  ## The keepers

  defp hand_over(vm) do
    receive do
      {:take, pid, ref} ->
        send(pid, {ref, vm})

      {:settled, pid, ref} ->
        send(pid, {ref, :ok})
        hand_over(vm)
    end
  end

  # One that could not start its VM has said why on the console.
  defp ask(keeper, what) do
    ref = Process.monitor(keeper)
    send(keeper, {what, self(), ref})

    receive do
      {^ref, answer} ->
        Process.demonitor(ref, [:flush])
        answer

      {:DOWN, ^ref, :process, ^keeper, _reason} ->
        nil
    after
      @limit -> nil
    end
  end

  # A test may have two of a domain, one after the other. One that is there is better than one to come.
  defp put(domid, kind, keeper) do
    add = fn others -> Enum.sort_by([{kind, keeper} | others], &(elem(&1, 0) == :started)) end
    Agent.update(agent(), &Map.update(&1, domid, [{kind, keeper}], add))
  end

  defp pop(domid) do
    Agent.get_and_update(agent(), fn kept ->
      case kept do
        %{^domid => [{_kind, keeper} | others]} -> {keeper, %{kept | domid => others}}
        _none -> {nil, kept}
      end
    end)
  end

  # Of no process of a test's: they come and go.
  defp agent do
    case Agent.start(fn -> %{} end, name: __MODULE__) do
      {:ok, agent} -> agent
      {:error, {:already_started, agent}} -> agent
    end
  end
end
