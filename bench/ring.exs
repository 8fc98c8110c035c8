# bin/bench ring: native/ring/benches/ring measures and prints; here it is only built and run.
# It knows nothing of the library, so --case is not for it.
{_output, status} =
  System.cmd(
    "cargo",
    ["bench", "--quiet", "--package", "tube-ring", "--bench", "ring", "--"] ++ System.argv(),
    cd: Path.expand("../native", __DIR__),
    into: IO.stream(:stdio, :line)
  )

System.halt(status)
