# bin/bench dist: see bench/README.md for what is measured and how.
#
# As in bench/tube.exs the code is compiled here, and the two nodes get it from us.
root = Path.expand("..", __DIR__)

support = for name <- ~w(lab vm vm/spare node loopback), do: "test/support/#{name}.ex"
bench = for name <- ~w(host stats carrier rings report cli), do: "bench/lib/#{name}.ex"
dist = for name <- ~w(work cases nodes), do: "bench/dist/#{name}.ex"

built = for file <- support ++ bench ++ dist, module <- Code.compile_file(file, root), do: module

modules =
  for {module, beam} <- built do
    Tube.Test.VM.keep(module, beam)
    module
  end

alias Tube.Bench.CLI
alias Tube.Bench.Dist.{Cases, Nodes}
CLI.main(System.argv(), modules, %{name: "dist", cases: Cases.all(), pair: Nodes})
