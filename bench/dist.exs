# bin/bench dist: bench/README.md describes the cases and the method.
#
# As in bench/tube.exs, the code is compiled here and sent to the two nodes.
Code.require_file("../test/support/script.exs", __DIR__)

bench = for name <- ~w(host stats carrier rings report cli), do: "bench/lib/#{name}.ex"
dist = for name <- ~w(work cases nodes), do: "bench/dist/#{name}.ex"
modules = Tube.Test.Script.compile!(bench ++ dist)

alias Tube.Bench.CLI
alias Tube.Bench.Dist.{Cases, Nodes}
CLI.main(System.argv(), modules, %{name: "dist", cases: Cases.all(), pair: Nodes})
