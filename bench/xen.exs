# bin/bench xen: see bench/README.md for what is measured and how.
#
# As in bench/tube.exs the code is compiled here, and the two nodes get it from us. bin/bench has
# booted the lab before.
Code.require_file("../test/support/script.exs", __DIR__)

bench =
  for name <- ~w(host stats report cli carrier rings variants socket work cases pair),
      do: "bench/lib/#{name}.ex"

dist = for name <- ~w(work cases nodes), do: "bench/dist/#{name}.ex"
xen = for name <- ~w(guests netfront vchan cases pair), do: "bench/xen/#{name}.ex"
modules = Tube.Test.Script.compile!(bench ++ dist ++ xen)

alias Tube.Bench.CLI
alias Tube.Bench.Xen.{Cases, Pair}

CLI.main(System.argv(), modules, %{
  name: "xen",
  cases: Cases.all(),
  pair: Pair,
  # Whether the two sides of a 1 MiB ring keep in step or the writer stays ahead is settled in each
  # measurement anew, so it takes many.
  quick: %{rounds: 3, ms: 600},
  full: %{rounds: 9, ms: 1_500}
})
