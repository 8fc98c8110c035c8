# bin/bench tube: see bench/README.md for what is measured and how.
#
# Nothing of this belongs into the library, so it is compiled here, and the two VMs get the
# code from us.
Code.require_file("../test/support/script.exs", __DIR__)

modules =
  ~w(host stats carrier rings variants socket work cases pair report cli)
  |> Enum.map(&"bench/lib/#{&1}.ex")
  |> Tube.Test.Script.compile!()

alias Tube.Bench.{Cases, CLI, Pair}
CLI.main(System.argv(), modules, %{name: "tube", cases: Cases.all(), pair: Pair})
