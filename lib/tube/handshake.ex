defmodule Tube.Handshake do
  @moduledoc false

  # The contract of the handshake in xenstore: its types, events and operations.
  #
  # `Tube.Handshake.Nock` (the side that opens) and `Tube.Handshake.Tip` (the side that accepts) are
  # pure state machines. They take events and return operations, and know no process, socket or
  # clock. `Tube.Connection` interprets them; so does the exhaustive test. docs/handshake.md
  # describes the protocol.
  #
  #     {machine, ops} = Nock.new(params)
  #     {machine, ops} = Nock.handle(machine, event)
  #
  # ## The interpreter guarantees
  #
  # - Operations are carried out in the given order.
  # - Plain store requests reach the store in the given order. They share one connection, so they
  #   may be sent without waiting for each other's replies. A transaction has no order relative to
  #   anything; the machine sends no request while one of its transactions is open.
  # - Every store request gets one reply within a time limit: its result, `{:error, :timeout}` or
  #   `{:error, :store_lost}`.
  # - `{:allocate, _}` and `{:map, _}` get one reply each. `:free` follows each success exactly
  #   once, and never while one of them is outstanding.
  # - A watch fires at least once after its registration. Later events may be late, merged or
  #   spurious. The machine ignores events that it does not expect.
  # - After `:store_lost` nothing of the old connection arrives any more: the machine drops its
  #   outstanding requests, and its watches are gone. `{:store_back, nonce}` follows later, or
  #   never.
  # - `{:stop, reason}` is the last operation of a machine. By then all its timers and watches are
  #   cancelled and its rings are freed.

  alias Tube.Paths
  alias Tube.Xenstore.Batch

  @version 1

  @typedoc "Opaque to the interpreter, which returns it with the reply."
  @opaque ref :: {term, non_neg_integer}

  @typedoc """
  The tip's offer: grant references of the control pages and the event channel's port, which the
  nock needs; sizes in bytes and the time in seconds since 1970, for people who read the store. The
  nock takes the sizes from the page.
  """
  @type refs :: %{
          tx_ring_ref: 0..0xFFFFFFFF,
          rx_ring_ref: 0..0xFFFFFFFF,
          event_channel: 0..0xFFFFFFFF,
          tx_ring_bytes: pos_integer,
          rx_ring_bytes: pos_integer,
          opened: non_neg_integer
        }

  @typedoc """
  `:limit` bounds the whole handshake; `:close` the peer's part of a close; `:drain` our owner's
  part of it; `:grace` the peer's return after the store was lost; `:vanished` the wait for a
  notification after the peer's nodes have gone; `:clean` the removal of our nodes.
  """
  @type timer :: :limit | :close | :drain | :grace | :vanished | :clean

  @typedoc "A watch: the tip's service directory, our node at the tip, or the peer's half."
  @type token :: :services | :tip_node | :peer

  @typedoc """
  Why a tube was not made, or ended. `:closed` is the orderly end. Others: `:timeout`, `:refused`,
  `:version`, `:busy` (the tip's limits), `:protocol` (an impossible value), `:peer_down`,
  `:peer_domain_gone`, `:store_lost`, `:owner_down`, or the error of an operation (`:enospc`...).
  """
  @type reason :: atom | {:xenstore, binary}

  @typedoc """
  What the interpreter does:

  - `{:store, ref, request}`: replied to by `{:store, ref, result}`.
  - `{:watch, token, path, interest}`: watch `path` and report changes at, below or above `interest`
    as `{:watch, token}`. Many tubes use the same `path`, so that they can share one watch of the
    store. `{:unwatch, token}` ends it.
  - `{:timer, name, ms}` starts or restarts a timer, `{:cancel, name}` stops it, running or not.
  - `{:allocate, %{peer: domid, nonce: hex}}`: the tip's rings and unbound event channel,
    replied to by `{:allocated, {:ok, refs} | {:error, reason}}`.
  - `{:map, %{peer: domid, nonce: hex, tx_ring_ref: _, rx_ring_ref: _, event_channel: _}}`: the
    nock's side of the same, replied to by `{:mapped, :ok | {:error, reason}}`.
  - `:start`: data may flow.  `:connected`: the tube is open (follows `:start`).
  - `:closing`: the peer has begun to close (its flags in the page say the same).
  - `{:failed, reason}`: there will be no tube, or the peer is lost. Report it to the waiting
    caller; the machine goes on to clean up. If the tube was open, `:free` comes only after
    `:drained` (or `:close`, or the `drain` limit), so that the owner gets all data that arrived.
  - `:free`: release the rings and the channel.
  - `{:state, 0..8}`: our XenbusState has been written; `{:peer_state, 0..8}`: the peer's was read.
    For tracing only.
  - `{:stop, reason}`: everything is cleaned up.
  """
  @type op ::
          {:store, ref, Batch.request()}
          | {:watch, token, Paths.t(), Paths.t()}
          | {:unwatch, token}
          | {:timer, timer, pos_integer}
          | {:cancel, timer}
          | {:allocate, %{peer: Paths.domid(), nonce: Paths.nonce()}}
          | {:map, map}
          | :start
          | :connected
          | :closing
          | :free
          | {:state, 0..8}
          | {:peer_state, 0..8}
          | {:failed, reason}
          | {:stop, reason}

  @typedoc """
  Events, besides the replies to operations:

  - `{:watch, token}`, `{:watch_failed, token, reason}`, `{:timeout, timer}`.
  - `:close`: the owner closes (FIN is already set in the page). In a handshake: give up.
  - `:owner_down`: the same, because the owner died.
  - `:suspend`: the same, because the machine is about to be suspended.
  - `{:refuse, word}` (tip, before it is connected): nobody will accept this tube after all.
  - `:fin`: the peer will write no more. `:drained`: and our owner has taken all of it.
  - `:gone`: the peer's end of the rings is gone. `:domain_gone`: its whole domain.
  - `:protocol`: the page held an impossible value.
  - `:store_lost`, `{:store_back, fresh_nonce}`.
  """
  @type event ::
          {:store, ref, Batch.result()}
          | {:watch, token}
          | {:watch_failed, token, reason}
          | {:timeout, timer}
          | {:allocated, {:ok, refs} | {:error, reason}}
          | {:mapped, :ok | {:error, reason}}
          | :close
          | :owner_down
          | :suspend
          | {:refuse, refusal}
          | :fin
          | :drained
          | :gone
          | :domain_gone
          | :protocol
          | :store_lost
          | {:store_back, Paths.nonce()}

  @typedoc "What a tip may write to its `error` node."
  @type refusal :: :refused | :version | :busy | :timeout | :protocol | :enospc | :closed

  @typedoc """
  Limits in milliseconds, each positive: `handshake` for all of it; `close` for the peer to confirm;
  `drain` for our owner to take the remaining data after the peer has closed; `grace` for the peer
  to come back after the store was lost; `vanished` for the notification that tells a process's end
  from a domain's; `clean` for removing our nodes.
  """
  @type limits :: %{
          optional(:handshake | :close | :drain | :grace | :vanished | :clean) => pos_integer
        }

  @typedoc """
  `me` and `peer` are domids. `tid` numbers the tubes of this nock to this tip; the nock chooses one
  that no other live tube of its domain uses. `nonce` is 16 random lower-case hex digits that
  identify one attempt. Nock only: `service`, the name as the user wrote it. Tip only: `verdict`,
  `:accept` (default) or `{:refuse, word}`.
  """
  @type params :: %{
          required(:me) => Paths.domid(),
          required(:peer) => Paths.domid(),
          required(:tid) => Paths.tid(),
          required(:nonce) => Paths.nonce(),
          optional(:service) => binary,
          optional(:verdict) => :accept | {:refuse, refusal},
          optional(:limits) => limits
        }

  @doc "The only version of handshake and wire format that this release speaks."
  @spec version() :: 1
  def version, do: @version
end
