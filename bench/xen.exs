# bin/bench xen: bench/README.md describes the cases and the method.
#
# As in bench/tube.exs, the code is compiled here and sent to the two nodes. bin/bench has already
# booted the lab.
Code.require_file("../test/support/script.exs", __DIR__)

modules = "bench/{lib,dist,xen}/**/*.ex" |> Path.wildcard() |> Tube.Test.Script.compile!()

alias Tube.Bench.CLI
alias Tube.Bench.Xen.{Cases, Pair}

CLI.main(System.argv(), modules, %{
  name: "xen",
  cases: Cases.all(),
  pair: Pair,
  # In each measurement, either the two sides of a 1 MiB ring keep in step or the writer stays
  # ahead, so it takes many rounds to see both.
  quick: %{rounds: 3, ms: 600},
  full: %{rounds: 9, ms: 1_500}
})
