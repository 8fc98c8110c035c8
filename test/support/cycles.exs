# The cycles that are left, each with a reason: {place, nodes, reason}. See Tube.Test.Cycles. The
# list only gets shorter; the aim is three cycles in lib and one in native.
[
  {"lib", ~w(lib/tube/domain.ex lib/tube/domain/server.ex),
   "the API calls its server, which returns the API's struct"},
  {"lib", ~w(lib/tube/handshake/machine.ex lib/tube/handshake/nock.ex lib/tube/handshake/open.ex
      lib/tube/handshake/tip.ex), "the machines' shared steps ask which role they are in"},
  {"native/tube/src", ~w(handles nif),
   "the down callback of a NIF resource needs the table of handles, which holds that resource"}
]
