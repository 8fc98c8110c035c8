# bin/demo: two Erlang VMs, domains 7 and 5 of the founding document, meet in xenstore and
# talk through shared memory. Each step is checked; the last line is `demo: ok`, or standard
# error has the reason and the exit status is 1.

root = Path.expand("..", __DIR__)

support = for name <- ~w(vm eventually run_dir), do: "test/support/#{name}.ex"
helpers = for name <- ~w(screen witness handshake story), do: "examples/demo/#{name}.ex"

modules =
  for file <- support ++ helpers, {module, beam} <- Code.compile_file(file, root) do
    Tube.Test.VM.keep(module, beam)
    module
  end

# bin/demo makes the directory, and removes it whatever happens here.
run_dir = System.fetch_env!("TUBE_DEMO_DIR")

# A task that fails is reported where it is awaited, in place of ending all of this.
Process.flag(:trap_exit, true)

try do
  Tube.Demo.Story.tell(run_dir, modules)
  Tube.Demo.Screen.ok("demo: ok")
catch
  kind, reason ->
    Tube.Demo.Screen.failed(Exception.format(kind, reason, __STACKTRACE__))
    Tube.Demo.Story.circumstances(run_dir)
    Tube.Demo.Screen.failed("demo: failed")
    System.halt(1)
end
