defmodule Tube.Test.VM.Spare do
  @moduledoc """
  VMs that tests of the lab share one after another, and VMs that are started before a test needs
  them.

  A VM in a guest takes many seconds to start, because every instruction there is emulated. So a VM
  that a test leaves alive is reset instead of stopped: its processes of `Tube.Test.VM.run/3` are
  killed and the library is stopped, which frees the domain. To the next test it looks like a new
  VM, except for the code that is loaded. When a test kills a VM, a new one starts while the test
  goes on.
  """

  alias Tube.Test.{Eventually, Lab, Table, VM}

  # A keeper is a process that has a VM, or starts it, and hands it to the first test that asks. The
  # limit is for its reply.
  @limit 120_000

  @doc "In the lab, starts a VM for each of these domains at once, without waiting for them."
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

  @doc "Returns a kept VM for these options, with the library started, or nil."
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
  Keeps the VM that was started with `opts`, if other tests can use it; otherwise stops it. Does not
  wait until it is reset: see `settle/1`.
  """
  @spec keep(VM.t(), keyword) :: :ok
  def keep(vm, opts) do
    if shared?(opts) and VM.alive?(vm),
      do:
        put(
          vm.domid,
          :kept,
          spawn(fn -> if reset?(vm), do: hand_over(vm), else: VM.stop(vm) end)
        ),
      else: VM.stop(vm)
  end

  @doc "Waits until no kept VM has the domain any more."
  @spec settle(non_neg_integer | nil) :: :ok
  def settle(domid) do
    if Lab.here?() do
      kept = for {:kept, keeper} <- Table.get(__MODULE__, domid, []), do: keeper
      for keeper <- kept, do: ask(keeper, :settled)
    end

    :ok
  end

  @doc "Starts a new VM for later tests, when a test has killed one that tests share."
  @spec replace(VM.t()) :: :ok
  def replace(vm), do: if(vm.shared, do: prepare([vm.domid]), else: :ok)

  # A VM with any other option is of no use to other tests.
  @doc "Whether tests share VMs that are started with these options."
  @spec shared?(keyword) :: boolean
  def shared?(opts), do: Lab.here?() and Keyword.keys(opts) -- [:run_dir, :domid] == []

  defp reset?(vm) do
    :ok = VM.end_processes(vm)
    :ok = VM.call(vm, :application, :stop, [:tube])
    Eventually.true!(fn -> VM.call(vm, Tube.Native, :live_counts, []).links == 0 end)
    true
  catch
    _kind, _reason -> false
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

  # A keeper that cannot start its VM prints the reason on the console.
  defp ask(keeper, what) do
    ref = Process.monitor(keeper)
    send(keeper, {what, self(), ref})

    receive do
      {^ref, reply} ->
        Process.demonitor(ref, [:flush])
        reply

      {:DOWN, ^ref, :process, ^keeper, _reason} ->
        nil
    after
      @limit -> nil
    end
  end

  # A test may need two of a domain, one after the other. Prefer a VM that is already running.
  defp put(domid, kind, keeper) do
    add = fn others -> Enum.sort_by([{kind, keeper} | others], &(elem(&1, 0) == :started)) end
    Table.update(__MODULE__, &Map.update(&1, domid, [{kind, keeper}], add))
  end

  defp pop(domid) do
    Table.get_and_update(__MODULE__, fn kept ->
      case kept do
        %{^domid => [{_kind, keeper} | others]} -> {keeper, %{kept | domid => others}}
        _none -> {nil, kept}
      end
    end)
  end
end
