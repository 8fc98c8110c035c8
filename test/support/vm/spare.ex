defmodule Tube.Test.VM.Spare do
  @moduledoc """
  VMs that one test of the lab has no more use for, kept for the next one.

  A VM in a guest takes many seconds to start, because every instruction there is emulated. So one
  that a test leaves alive is emptied, not ended: its processes of `Tube.Test.VM.run/3` are killed and
  the library is stopped, by which the domain is nobody's again. To the next test it is a new VM, but
  for the code that is loaded.
  """

  alias Tube.Test.{Eventually, Lab, VM}

  @doc "A VM that was kept, with the library started, or nil."
  @spec take(keyword) :: VM.t() | nil
  def take(opts) do
    with true <- plain?(opts),
         :ok <- Tube.Test.Node.Spare.make_way(opts[:domid]),
         %VM{} = vm <- Agent.get_and_update(agent(), &Map.pop(&1, opts[:domid])) do
      {:ok, _started} = VM.call(vm, :application, :ensure_all_started, [:tube])
      vm
    else
      _none -> nil
    end
  end

  @doc "Keeps the VM that was started with `opts`, if it can be of use; otherwise stops it."
  @spec keep(VM.t(), keyword) :: :ok
  def keep(vm, opts) do
    if plain?(opts) and VM.alive?(vm) and emptied?(vm) do
      # A test may have had two of a domain, one after the other.
      case Agent.get_and_update(
             agent(),
             &Map.get_and_update(&1, vm.domid, fn old -> {old, vm} end)
           ) do
        nil -> :ok
        old -> VM.stop(old)
      end
    else
      VM.stop(vm)
    end
  end

  # Whatever else was asked for, another VM need not have.
  defp plain?(opts), do: Lab.here?() and Keyword.keys(opts) -- [:run_dir, :domid] == []

  defp emptied?(vm) do
    :ok = VM.end_processes(vm)
    :ok = VM.call(vm, :application, :stop, [:tube])
    Eventually.true!(fn -> VM.call(vm, Tube.Native, :stats, []).links == 0 end)
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
