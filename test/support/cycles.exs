# The cycles that are left, each with a reason: {place, nodes, reason}. See Tube.Test.Cycles. The
# list only gets shorter; the aim is three cycles in lib and one in native.
[
  {"lib",
   ~w(lib/tube.ex lib/tube/commands.ex lib/tube/connection.ex lib/tube/connection/operation.ex
      lib/tube/connection/owner.ex lib/tube/connection/rings.ex lib/tube/connection/server.ex
      lib/tube/connection/state.ex lib/tube/door.ex lib/tube/flow.ex lib/tube/listener.ex
      lib/tube/snapshot.ex lib/tube/stats.ex lib/tube/suspension.ex lib/tube/telemetry.ex),
   "lookups sit in Connection, and processes call each other where they could send a message"},
  {"lib", ~w(lib/tube/domain.ex lib/tube/domain/server.ex),
   "the API calls its server, which returns the API's struct"},
  {"lib", ~w(lib/tube/handshake/machine.ex lib/tube/handshake/nock.ex lib/tube/handshake/open.ex
      lib/tube/handshake/tip.ex), "the machines' shared steps ask which role they are in"},
  {"native/hub/src/store", ~w(connection transaction watch), "ConnId is defined above its users"},
  {"native/hub/src/store", ~w(requests toolstack), "Answer and OK are defined above their users"},
  {"native/link/src", ~w(after assembly flow linger rx status vm),
   "Delivered and Refusal are defined above their users"},
  {"native/platform/src", ~w(pages platform), "PAGE is defined above its user"},
  {"native/platform/src/xen", ~w(evtchn grants library missing),
   "the error that names what is missing also looks for it"},
  {"native/platform/src/xen", ~w(relay store), "the store's wire format is part of the store"},
  {"native/tube/src", ~w(driver handles nif process),
   "the down callback of a resource in nif/watch needs the table of handles; Word is defined in driver"},
  {"native/tube/src/nif", ~w(data gather), "Long is defined above its user"}
]
