defmodule Tube.Test.Script do
  @moduledoc """
  For scripts that start VMs as the tests do (bin/demo, bin/bench): compiles what they need, which is
  nothing of the library's.

      Code.require_file("../test/support/script.exs", __DIR__)
      modules = Tube.Test.Script.compile!(["examples/demo/scenario.ex"])
  """

  # All that a VM in a test is made of, and no more: the rest of this folder knows ExUnit.
  @support ~w(eventually lab loopback run_dir vm vm/spare node node/spare)
  @root Path.expand("../..", __DIR__)

  @doc """
  Compiles these files, named from the project's root, and those of `test/support` for VMs. The modules
  are returned; `Tube.Test.VM` can give them to the VMs it starts.
  """
  @spec compile!([Path.t()]) :: [module]
  def compile!(files) do
    support = for name <- @support, do: "test/support/#{name}.ex"
    paths = for file <- support ++ files, do: Path.join(@root, file)

    # Where MIX_ENV is test they are there already.
    Code.put_compiler_option(:ignore_module_conflict, true)

    # All at once, since some know each other. A script that lacks a file says so before it begins.
    main = self()
    ref = make_ref()
    tell = fn _file, module, beam -> send(main, {ref, module, beam}) end

    case Kernel.ParallelCompiler.compile(paths, each_module: tell) do
      {:ok, modules, []} ->
        for _module <- modules, do: receive(do: ({^ref, module, beam} -> keep(module, beam)))

      {_result, _modules, _warnings} ->
        raise "#{inspect(__MODULE__)}: these do not compile without a warning: " <>
                Enum.join(support ++ files, ", ")
    end
  end

  # By name, since it is among what was compiled just now.
  defp keep(module, beam) do
    :ok = apply(Tube.Test.VM, :keep, [module, beam])
    module
  end
end
