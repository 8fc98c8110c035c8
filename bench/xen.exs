# bin/bench xen: see bench/README.md for what is measured and how.
#
# As in bench/tube.exs the code is compiled here, and the two nodes get it from us. bin/bench has
# booted the lab before.
root = Path.expand("..", __DIR__)
# One file after another, in whatever order: some name what is only compiled later.
Code.put_compiler_option(:no_warn_undefined, :all)

support =
  for name <- ~w(eventually lab vm vm/spare node node/spare loopback),
      do: "test/support/#{name}.ex"

bench =
  for name <- ~w(host stats report cli carrier rings variants socket work cases pair),
      do: "bench/lib/#{name}.ex"

dist = for name <- ~w(work cases nodes), do: "bench/dist/#{name}.ex"
xen = for name <- ~w(guests netfront vchan cases pair), do: "bench/xen/#{name}.ex"

built =
  for file <- support ++ bench ++ dist ++ xen, module <- Code.compile_file(file, root), do: module

modules =
  for {module, beam} <- built do
    Tube.Test.VM.keep(module, beam)
    module
  end

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
