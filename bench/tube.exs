# bin/bench tube: see bench/README.md for what is measured and how.
#
# Nothing of this belongs into the library, so it is compiled here, and the two VMs get the
# code from us.
root = Path.expand("..", __DIR__)

support = for name <- ~w(lab vm vm/spare), do: "test/support/#{name}.ex"

bench =
  ~w(host stats carrier rings variants work cases pair report cli)
  |> Enum.map(&"bench/lib/#{&1}.ex")

built = for file <- support ++ bench, module <- Code.compile_file(file, root), do: module

modules =
  for {module, beam} <- built do
    Tube.Test.VM.keep(module, beam)
    module
  end

alias Tube.Bench.{Cases, CLI, Pair}
CLI.main(System.argv(), modules, %{name: "tube", cases: Cases.all(), pair: Pair})
