defmodule Tube.Domain.State do
  @moduledoc false
  # The state of `Tube.Domain.Server`.
  #
  # `phase`     :idle (not needed), {:attempt, pid, monitor, timer}, :attached or {:pause, timer}
  # `lost`      it was attached, and tries to attach again
  # `wanted`    settings to attach with; once attached, with the actual domid
  # `platform`  if set while not attached: the domain lives, only its store needs a new connection
  # `life`      the port that closes when the domain ends
  # `claim`     on Xen, the claim that no other VM of this domain has tubes; kept once taken
  # `stale`     nodes that we published before may still be in the store
  # `held`      calls fail; `back` holds the settings to come back with
  # `given`     the domid of the options, if any

  defstruct phase: :idle,
            lost: false,
            wanted: nil,
            domain: nil,
            platform: nil,
            life: nil,
            claim: nil,
            held: false,
            back: nil,
            given: nil,
            stale: false,
            since: nil,
            failures: 0,
            error: nil,
            callers: [],
            subscribers: %{}

  @type t :: %__MODULE__{}
end
