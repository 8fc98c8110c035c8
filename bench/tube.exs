# bin/bench tube: see bench/README.md for what is measured and how.
#
# Nothing of this belongs into the library, so it is compiled here, and the two VMs get the
# code from us.
root = Path.expand("..", __DIR__)
# One file after another, in whatever order: some name what is only compiled later.
Code.put_compiler_option(:no_warn_undefined, :all)

support = for name <- ~w(eventually lab vm vm/spare node/spare), do: "test/support/#{name}.ex"

bench =
  ~w(host stats carrier rings variants socket work cases pair report cli)
  |> Enum.map(&"bench/lib/#{&1}.ex")

built = for file <- support ++ bench, module <- Code.compile_file(file, root), do: module

modules =
  for {module, beam} <- built do
    Tube.Test.VM.keep(module, beam)
    module
  end

alias Tube.Bench.{Cases, CLI, Pair}
CLI.main(System.argv(), modules, %{name: "tube", cases: Cases.all(), pair: Pair})
