defmodule Tube.Test.OneVM do
  @moduledoc """
  Tests in one VM that is domain 5 and opens tubes to itself: what the door does, whoever is at
  the other end. Each test has a process of its own there, whose end closes what it opened.
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
