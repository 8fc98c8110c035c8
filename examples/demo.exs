# bin/demo: two Erlang VMs, domains 7 and 5, find each other in xenstore and exchange messages
# through shared memory. Then two nodes of distributed Erlang do the same. Each step is checked. The
# last line is `demo: ok`; on failure, standard error has the reason and the exit status is 1.

Code.require_file("../test/support/script.exs", __DIR__)

helpers =
  for name <- ~w(screen outside_view handshake scenario nodes), do: "examples/demo/#{name}.ex"

# The second part uses the code of the benchmark, for a shorter time.
bench = for name <- ~w(host stats report rings carrier), do: "bench/lib/#{name}.ex"
dist = for name <- ~w(work nodes), do: "bench/dist/#{name}.ex"
modules = Tube.Test.Script.compile!(helpers ++ bench ++ dist)

# bin/demo creates and removes this directory.
run_dir = System.fetch_env!("TUBE_DEMO_DIR")

# Report a failed task where it is awaited, instead of ending this process.
Process.flag(:trap_exit, true)

try do
  Tube.Demo.Scenario.run(run_dir, modules)
  Tube.Demo.Nodes.run(Path.join(run_dir, "nodes"), modules)
  Tube.Demo.Screen.ok("demo: ok")
catch
  kind, reason ->
    Tube.Demo.Screen.failed(Exception.format(kind, reason, __STACKTRACE__))
    Tube.Demo.Scenario.diagnostics(run_dir)
    Tube.Demo.Screen.failed("demo: failed")
    System.halt(1)
end
