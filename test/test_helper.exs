# The test VM attaches to a domain in a private run directory, never in the user's own.
run_dir = Tube.Test.RunDir.create()
System.put_env("TUBE_RUN_DIR", run_dir)
System.delete_env("TUBE_DOMID")

# Since 1.15 Mix removes applications from the code path that no dependency names.
if function_exported?(Mix, :ensure_application!, 1),
  do: for(app <- [:mnesia, :proper, :public_key], do: apply(Mix, :ensure_application!, [app]))

# The VMs that most tests use, and replacements for when a test kills them.
Tube.Test.VM.Spare.prepare([5, 7, 9, 5, 7])

# Some tests need a hypervisor, others the hub. Those tagged :long are for bin/test --long.
elsewhere = if Tube.Test.Lab.here?(), do: :hub, else: :xen
ExUnit.start(capture_log: true, exclude: [elsewhere, :long])
ExUnit.after_suite(fn _result -> Tube.Test.RunDir.remove(run_dir) end)
