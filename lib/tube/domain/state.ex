defmodule Tube.Domain.State do
  @moduledoc false
  # What `Tube.Domain.Server` knows.
  #
  # `phase` is :idle (nobody needs it), {:attempt, pid, monitor, timer}, :attached or {:pause, timer}.
  # `wanted` are the settings to attach with; once attached, with the domid that it became.
  # `platform` while not attached: the domain lives, only its store has to be connected to again.
  # `claim`: on Xen, that no other VM of this domain has tubes; once taken, kept.
  # `stale`: what we published before may be in the store still.
  # `held`: nobody is let in; `back` are the settings to come back with. `given` is the domid that was asked for.

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
