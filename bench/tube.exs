# bin/bench tube: bench/README.md describes the cases and the method.
#
# This code is not part of the library, so it is compiled here and sent to the two VMs.
Code.require_file("../test/support/script.exs", __DIR__)

modules = "bench/lib/**/*.ex" |> Path.wildcard() |> Tube.Test.Script.compile!()

alias Tube.Bench.{Cases, CLI, Pair}
CLI.main(System.argv(), modules, %{name: "tube", cases: Cases.all(), pair: Pair})
