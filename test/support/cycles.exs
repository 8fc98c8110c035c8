# The cycles that are left, each with a reason: {place, nodes, reason}. See Tube.Test.Cycles. The
# list only gets shorter.
[
  {"native/tube/src", ~w(handles nif),
   "the down callback of a NIF resource needs the table of handles, which holds that resource"}
]
