defmodule Tube.Handshake do
  @moduledoc false

  # The rendezvous of two domains in xenstore, as data.
  #
  # `Tube.Handshake.Nock` (the side that asks) and `Tube.Handshake.Tip` (the side that accepts) are
  # pure machines: they take events, and give back operations for somebody else to carry out. They
  # know no process, socket or clock. `Tube.Connection` is their interpreter; the exhaustive test
  # is another. docs/handshake.md tells the story; this module is the contract between the two.
  #
  #     {machine, ops} = Nock.new(params)
  #     {machine, ops} = Nock.handle(machine, event)
  #
  # ## What the interpreter promises
  #
  # - Operations are carried out in the order given.
  # - Plain store requests reach the store in the order given (one connection, so they may be
  #   sent without waiting for each other's answer). A transaction is ordered against nothing;
  #   the machine sends no request while one of its transactions is open.
  # - Every store request is answered once, within a limit: by its result, by
  #   `{:error, :timeout}`, or by `{:error, :store_lost}`.
  # - `{:allocate, _}` and `{:map, _}` are answered once too. `:free` follows each that succeeded,
  #   once, and is never asked for while one of them is outstanding.
  # - A watch tells at least once after its registration. After that events may be late,
  #   merged or spurious. Events that the machine does not expect are ignored by it.
  # - After `:store_lost` nothing of the old connection arrives any more: the machine forgets
  #   what it had asked, and its watches are gone. `{:store_back, nonce}` follows some time
  #   later, or never.
  # - `{:stop, reason}` is the last operation of a machine. All its timers and watches are
  #   cancelled by then, and its rings are freed.
  #
  # ## Requests
  #
  # A request is one xenstore request. Inside `{:transaction, list}` there are more words,
  # for what a transaction must decide on the spot:
  #
  # - `{:guard, path, values}`: READ; go on only if the value is one of `values`, where `nil` stands
  #   for a node that is absent or cannot be read. Else abort: `{:error, :guard}`.
  # - `{:ensure, path, perms}`: the directory exists and has these permissions. Nothing is written
  #   if so already: a write to a parent would wake the watches of all tubes below it.
  # - `{:try, request}`: an error of this request does not abort the transaction.
  # - `{:prune, path}`, `{:prune, path, but}`: RM the node if it has no children (other than those
  #   named in `but`). Never an error: what is absent, occupied or forbidden stays as it is.
  #
  # A transaction is retried on EAGAIN from its start, a bounded number of times with jitter.
  # `run/2` is the body of such a transaction.

  alias Tube.Paths

  @version 1

  @typedoc "Permissions as xenstore has them: owner first, whose letter is everybody's default."
  @type perms :: [{:n | :r | :w | :b, Paths.domid()}, ...]

  @type plain ::
          {:read, Paths.t()}
          | {:write, Paths.t(), binary}
          | {:mkdir, Paths.t()}
          | {:rm, Paths.t()}
          | {:directory, Paths.t()}
          | {:get_perms, Paths.t()}
          | {:set_perms, Paths.t(), perms}

  @type in_transaction ::
          plain
          | {:try, plain}
          | {:guard, Paths.t(), [binary | nil, ...]}
          | {:ensure, Paths.t(), perms}
          | {:prune, Paths.t()}
          | {:prune, Paths.t(), but :: [String.t()]}

  @type request :: plain | {:transaction, [in_transaction]}

  @typedoc "Opaque to the interpreter: given back with the answer."
  @opaque ref :: {term, non_neg_integer}

  @typedoc "READ gives `{:ok, value}`, DIRECTORY `{:ok, names}`, a transaction `{:ok, results}`, all others `:ok`."
  @type result :: :ok | {:ok, binary | [String.t()] | perms | [result]} | {:error, term}

  @typedoc """
  What the tip says of its rings: grant references of the control pages and the port, which the nock
  needs; sizes in bytes and the time in seconds since 1970, for whoever looks at the store (the nock
  takes the sizes from the page).
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
  `:limit` the whole handshake; `:close` the peer's part of a close; `:drain` our owner's part of it;
  `:grace` the peer's return after the store was lost; `:vanished` the doorbell's word after the
  peer's nodes have gone; `:clean` the removal of our nodes.
  """
  @type timer :: :limit | :close | :drain | :grace | :vanished | :clean

  @type token :: :door | :entry | :peer

  @typedoc """
  Why a tube was not made, or ended. `:closed` is the orderly end. Others: `:timeout`, `:refused`,
  `:version`, `:busy` (the tip's limits), `:protocol` (an impossible value), `:peer_down`,
  `:peer_domain_gone`, `:store_lost`, `:owner_down`, or what an operation answered (`:enospc`...).
  """
  @type reason :: atom | {:xenstore, binary}

  @typedoc """
  What the interpreter does:

  - `{:store, ref, request}`: answered by `{:store, ref, result}`.
  - `{:watch, token, path, interest}`: watch `path` (the same for many tubes, so that they can share
    one watch of the store), tell of changes at, below or above `interest` by `{:watch, token}`.
    `{:unwatch, token}` ends it.
  - `{:timer, name, ms}` starts (anew) a timer, `{:cancel, name}` stops it, running or not.
  - `{:allocate, %{peer: domid, nonce: hex}}`: the tip's rings and unbound event channel,
    answered by `{:allocated, {:ok, refs} | {:error, reason}}`.
  - `{:map, %{peer: domid, nonce: hex, tx_ring_ref: _, rx_ring_ref: _, event_channel: _}}`: the nock's
    side of the same, answered by `{:mapped, :ok | {:error, reason}}`.
  - `:listen`: data may flow.  `:connected`: the tube is open (follows `:listen`).
  - `:closing`: the peer has begun to close (its flags in the page say the same).
  - `{:failed, reason}`: there will be no tube, or the peer is lost. Tell whoever waits; the
    machine goes on to clean up. If the tube was open, `:free` comes only after `:drained` (or
    `:close`, or the `drain` limit), so that the owner gets what had arrived.
  - `:free`: drop rings and channel.
  - `{:state, 0..8}` own XenbusState has been written; `{:peer_state, 0..8}` the peer's was seen.
    For tracing only.
  - `{:stop, reason}`: all is clean.
  """
  @type op ::
          {:store, ref, request}
          | {:watch, token, Paths.t(), Paths.t()}
          | {:unwatch, token}
          | {:timer, timer, pos_integer}
          | {:cancel, timer}
          | {:allocate, %{peer: Paths.domid(), nonce: Paths.nonce()}}
          | {:map, map}
          | :listen
          | :connected
          | :closing
          | :free
          | {:state, 0..8}
          | {:peer_state, 0..8}
          | {:failed, reason}
          | {:stop, reason}

  @typedoc """
  What the machine is told, besides the answers to its operations:

  - `{:watch, token}`, `{:watch_failed, token, reason}`, `{:timeout, timer}`.
  - `:close`: the owner closes (FIN is already set in the page). In a handshake: give up.
  - `:owner_down`: the owner died; the same, with another reason.
  - `:suspend`: the same once more, since the machine is to be suspended.
  - `{:refuse, word}` (tip, before it is connected): nobody will take this tube after all.
  - `:fin`: the peer will write no more. `:drained`: and our owner has taken all of it.
  - `:gone`: the peer's end of the rings is no more. `:domain_gone`: its whole domain.
  - `:protocol`: the page held an impossible value.
  - `:store_lost`, `{:store_back, fresh_nonce}`.
  """
  @type event ::
          {:store, ref, result}
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

  @typedoc "What a tip may say in its `error` node."
  @type refusal :: :refused | :version | :busy | :timeout | :protocol | :enospc | :closed

  @typedoc """
  Limits in milliseconds, each positive: `handshake` in all; `close` for the peer to confirm; `drain`
  for our owner to take what is left after the peer has closed; `grace` for the peer to come back
  after the store was lost; `vanished` for the doorbell to tell whether it was the process or the
  domain; `clean` for removing our nodes.
  """
  @type limits :: %{
          optional(:handshake | :close | :drain | :grace | :vanished | :clean) => pos_integer
        }

  @typedoc """
  `me` and `peer` are domids; `tid` numbers the tubes of this nock to this tip (the nock chooses
  one that no other live tube of its domain uses); `nonce` is 16 lower-case hex digits, random,
  of one attempt. Nock only: `service`, the name as the user wrote it. Tip only: `verdict`,
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

  @doc "The version of handshake and wire that this release speaks, and the only one."
  @spec version() :: 1
  def version, do: @version

  @doc "Domain 0 has no `data` until somebody makes it; the toolstack makes everyone else's."
  @spec home(Paths.domid()) :: [in_transaction]
  def home(0), do: [{:ensure, Paths.data(0), n: 0}]
  def home(_domid), do: []

  @doc "The parents of an entry at the tip `me`: who may write there is `peer`, and nobody else."
  @spec inbox(me :: Paths.domid(), peer :: Paths.domid()) :: [in_transaction]
  def inbox(me, peer) do
    # The tip is in the list twice: what the nock makes there belongs to the nock, under C
    # xenstored, with the rest of this list.
    perms = Enum.uniq([{:n, me}, {:b, me}, {:b, peer}])
    home(me) ++ [{:ensure, Paths.tip_root(me), n: me}, {:ensure, Paths.inbox(me, peer), perms}]
  end

  @doc """
  Opens the door of domain `me` for `service`: says that `instance` answers for it.

  To be sent once all watches for knocks are set. Fails with `:guard` if another instance answers
  already, unless that one is in `dead`: instances that are known to have ended.
  """
  @spec open_door(Paths.domid(), service :: binary, instance :: binary, dead :: [binary]) ::
          request
  def open_door(me, service, instance, dead \\ []) do
    {:transaction,
     home(me) ++
       [
         {:guard, Paths.service(me, service), [nil, instance | dead]},
         {:ensure, Paths.service_directory(me), r: me},
         {:write, Paths.service_directory_version(me), Integer.to_string(@version)},
         {:write, Paths.service(me, service), instance}
       ]}
  end

  @doc "Takes back what `open_door/4` did; the door goes with its last service."
  @spec close_door(Paths.domid(), service :: binary, instance :: binary) :: request
  def close_door(me, service, instance) do
    {:transaction,
     [
       {:guard, Paths.service(me, service), [instance]},
       {:rm, Paths.service(me, service)},
       {:prune, Paths.service_directory(me), ["version", "watch"]},
       {:prune, Paths.tip_root(me)}
     ]}
  end

  @doc """
  What a VM sends first if it knows that it is the only one of its domain: removes all that a dead
  predecessor has left. (Under the local platform nothing is: a VM there is a whole domain.)
  """
  @spec sweep(Paths.domid()) :: [request]
  def sweep(me) do
    for path <- [
          Paths.nock_root(me),
          Paths.tip_root(me),
          Paths.service_directory(me),
          Paths.stats(me)
        ],
        do: {:rm, path}
  end

  @doc """
  The body of a transaction: carries out `requests` through `call`, which does a list of plain requests
  within the transaction, in order, and gives their results.

  On `{:ok, results}` commit, on `{:error, reason}` abort.
  """
  @spec run([in_transaction], Tube.Xenstore.Batch.call()) :: {:ok, [result]} | {:error, term}
  defdelegate run(requests, call), to: Tube.Xenstore.Batch
end
