# bin/demo: two Erlang VMs, domains 7 and 5 of the founding document, meet in xenstore and
# talk through shared memory; then two nodes of distributed Erlang do. Each step is checked; the last line is `demo: ok`, or standard
# error has the reason and the exit status is 1.

Code.require_file("../test/support/script.exs", __DIR__)

helpers = for name <- ~w(screen witness handshake story nodes), do: "examples/demo/#{name}.ex"
# The second act does what the benchmark does, for a shorter time.
bench = for name <- ~w(host stats report rings carrier), do: "bench/lib/#{name}.ex"
dist = for name <- ~w(work nodes), do: "bench/dist/#{name}.ex"
modules = Tube.Test.Script.compile!(helpers ++ bench ++ dist)

# bin/demo makes the directory, and removes it whatever happens here.
run_dir = System.fetch_env!("TUBE_DEMO_DIR")

# A task that fails is reported where it is awaited, in place of ending all of this.
Process.flag(:trap_exit, true)

try do
  Tube.Demo.Story.tell(run_dir, modules)
  Tube.Demo.Nodes.tell(Path.join(run_dir, "nodes"), modules)
  Tube.Demo.Screen.ok("demo: ok")
catch
  kind, reason ->
    Tube.Demo.Screen.failed(Exception.format(kind, reason, __STACKTRACE__))
    Tube.Demo.Story.circumstances(run_dir)
    Tube.Demo.Screen.failed("demo: failed")
    System.halt(1)
end
