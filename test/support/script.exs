defmodule Tube.Test.Script do
  @moduledoc """
  For scripts that start VMs as the tests do (bin/demo, bin/bench): compiles the modules that they
  need, none of which belongs to the library.

      Code.require_file("../test/support/script.exs", __DIR__)
      modules = Tube.Test.Script.compile!(["examples/demo/scenario.ex"])
  """

  # The modules that start VMs. The rest of this folder depends on ExUnit.
  @support ~w(eventually lab loopback run_dir table vm vm/actor vm/spare node node/spare)
  @root Path.expand("../..", __DIR__)

  @doc """
  Compiles these files, named from the project's root, and those of `test/support` for VMs. Returns
  the modules, which `Tube.Test.VM` can load into the VMs that it starts.
  """
  @spec compile!([Path.t()]) :: [module]
  def compile!(files) do
    support = for name <- @support, do: "test/support/#{name}.ex"
    paths = for file <- support ++ files, do: Path.join(@root, file)

    # With MIX_ENV=test the modules exist already.
    Code.put_compiler_option(:ignore_module_conflict, true)

    # All at once, because some depend on each other. A missing file raises before the script begins.
    main = self()
    ref = make_ref()
    report = fn _file, module, beam -> send(main, {ref, module, beam}) end

    case Kernel.ParallelCompiler.compile(paths, each_module: report) do
      {:ok, modules, []} ->
        for _module <- modules, do: receive(do: ({^ref, module, beam} -> keep(module, beam)))

      {_result, _modules, _warnings} ->
        raise "#{inspect(__MODULE__)}: errors or warnings in one of: " <>
                Enum.join(support ++ files, ", ")
    end
  end

  # By name, because it was compiled just now.
  defp keep(module, beam) do
    :ok = apply(Tube.Test.VM, :keep, [module, beam])
    module
  end
end
