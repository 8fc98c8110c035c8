defmodule Tube.DocumentationTest do
  # Runs the examples of the reference, and checks that every public function has a text, a spec, an
  # example and its errors.
  use ExUnit.Case, async: true

  # This VM has a private run directory: see test_helper.exs.
  doctest Tube
  doctest Tube.Error
  doctest Tube.Handler.Supervisor
  doctest Tube.Logger
  doctest Tube.Telemetry
  doctest :tube

  @public [
    Tube,
    Tube.Error,
    Tube.Handler,
    Tube.Handler.Supervisor,
    Tube.Logger,
    Tube.Telemetry,
    :tube
  ]

  test "only these modules and the tasks are public, and each task has a @shortdoc" do
    {:ok, modules} = :application.get_key(:tube, :modules)

    shown =
      for module <- modules,
          {:docs_v1, _, _, _, %{}, _, _} <- [Code.fetch_docs(module)],
          # test/support, and its stand-in for the library :telemetry
          module != :telemetry and not String.starts_with?(inspect(module), "Tube.Test."),
          do: module

    {tasks, public} = Enum.split_with(shown, &String.starts_with?(inspect(&1), "Mix.Tasks."))
    assert Enum.sort(public) == @public
    for task <- tasks, do: assert(Mix.Task.shortdoc(task), "#{inspect(task)} has no @shortdoc")
  end

  for module <- @public do
    @tag documented: module
    test "#{inspect(module)} is documented", %{documented: module} do
      for {kind, name, arity, doc} <- documented(module) do
        what = "#{kind} #{inspect(module)}.#{name}/#{arity}"
        assert %{"en" => text} = doc, "#{what} has no @doc"
        spec = spec(module, kind, {name, arity})
        assert spec, "#{what} has no @spec"

        if kind == :function do
          assert text =~ ~r/^ {4}\S/m, "#{what} has no example"

          if spec =~ ~r/\{:error,|on_start/,
            do: assert(text =~ ~r/errors/i, "#{what} does not document its errors")
        end
      end
    end
  end

  # Without hidden functions, and without callbacks of behaviours.
  defp documented(module) do
    {:docs_v1, _, _, _, _, _, docs} = Code.fetch_docs(module)

    callbacks =
      for behaviour <- behaviours(module), f <- behaviour.behaviour_info(:callbacks), do: f

    for {{kind, name, arity}, _, _, doc, _} <- docs,
        kind in [:function, :callback] and doc != :hidden,
        kind == :callback or {name, arity} not in callbacks,
        do: {kind, name, arity, doc}
  end

  defp behaviours(module),
    do: module.module_info(:attributes) |> Keyword.get_values(:behaviour) |> List.flatten()

  defp spec(module, kind, {name, _arity} = key) do
    {:ok, specs} =
      case kind do
        :function -> Code.Typespec.fetch_specs(module)
        :callback -> Code.Typespec.fetch_callbacks(module)
      end

    with {^key, clauses} <- List.keyfind(specs, key, 0),
         do:
           Enum.map_join(clauses, "\n", &Macro.to_string(Code.Typespec.spec_to_quoted(name, &1)))
  end
end
