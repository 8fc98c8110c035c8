# bin/bench ring: builds and runs native/ring/benches/ring, which does not use the library. It has
# no
# --case.
{_output, status} =
  System.cmd(
    "cargo",
    ["bench", "--quiet", "--package", "tube-ring", "--bench", "ring", "--"] ++ System.argv(),
    cd: Path.expand("../native", __DIR__),
    into: IO.stream(:stdio, :line)
  )

System.halt(status)
