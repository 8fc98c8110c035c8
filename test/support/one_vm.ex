defmodule Tube.Test.OneVM do
  @moduledoc """
  Tests of the public API in one VM, domain 5, that opens tubes to itself. Each test has a process
  of its own there; when the process ends, its tubes close.
  """

  use ExUnit.CaseTemplate

  alias Tube.Test.{RunDir, VM}

  using do
    quote do
      use Tube.Test.VM
    end
  end

  setup_all do
    run_dir = RunDir.create()
    vm = VM.start(run_dir: run_dir, domid: 5)

    on_exit(fn ->
      VM.stop(vm)
      RunDir.remove(run_dir)
    end)

    %{vm: vm, run_dir: run_dir}
  end

  setup %{vm: vm} do
    on_exit(fn -> VM.end_process(vm, :main) end)
  end
end
