# The domain that the test VM itself attaches to lives in a run directory of this run alone:
# never in the one that the user's own tubes may be using.
run_dir = Tube.Test.RunDir.create()
System.put_env("TUBE_RUN_DIR", run_dir)
System.delete_env("TUBE_DOMID")

# From 1.15 on Mix leaves out of the path what no dependency names.
if function_exported?(Mix, :ensure_application!, 1),
  do: for(app <- [:mnesia, :proper, :public_key], do: apply(Mix, :ensure_application!, [app]))

# Those that most tests ask for, and what takes their place when a test kills them.
Tube.Test.VM.Spare.prepare([5, 7, 9, 5, 7])

# Some tests need a hypervisor, and some the hub in its place. Those tagged :long are for bin/test --long.
elsewhere = if Tube.Test.Lab.here?(), do: :hub, else: :xen
ExUnit.start(capture_log: true, exclude: [elsewhere, :long])
ExUnit.after_suite(fn _result -> Tube.Test.RunDir.remove(run_dir) end)
