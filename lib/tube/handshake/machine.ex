defmodule Tube.Handshake.Machine do
  @moduledoc false
  # The state machine that both roles share: its state, how it dispatches events, and how it ends.
  #
  # A machine has at most one group of requests outstanding. While it waits for the replies it only
  # records what else happens: a watch marks its token dirty, a request to close is noted. Once the
  # replies are in, the machine acts on these notes. So each endpoint sees one order of events, and
  # acts on nothing twice.

  alias Tube.Handshake
  alias Tube.Handshake.{Open, Value}
  alias Tube.Xenstore.Batch

  import Tube.Handshake.Step

  defstruct [
    # The module of its role: Tube.Handshake.Nock or .Tip.
    :role,
    :me,
    :peer,
    :tid,
    :nonce,
    :service,
    :verdict,
    :limits,
    :phase,
    # nil, {:store, tag, replies by number, how many}, or {:native, :map | :allocate}
    pending: nil,
    # Tokens of watches that fired and whose nodes have not been read since.
    dirty: [],
    watches: [],
    timers: [],
    store: :up,
    # Do we hold rings, and so owe a :free?
    rings: false,
    refs: nil,
    # Nock: the instance that served the service when we sent our open request; nil before that.
    instance: nil,
    # Tip: the nock has created our node and would read an `error` there.
    entered: false,
    # Our XenbusState as written, and the peer's as read; :gone once its half is gone.
    own_state: nil,
    peer_state: nil,
    fin: false,
    drained: false,
    # The owner has closed.
    owner_closed: false,
    # Why it ends, once that is decided.
    ending: nil,
    # Nonce of the next attempt, which waits for an outstanding operation.
    restart: nil,
    tries: 0,
    ops: []
  ]

  @type t :: %__MODULE__{}

  @doc "The tokens that a phase acts on, most important first."
  @callback watched_tokens(phase :: atom) :: [Handshake.token()]
  @doc "Reads the nodes behind a dirty token again."
  @callback reread(t, Handshake.token()) :: t
  @doc "The replies to a group of requests of the role."
  @callback replied(t, tag :: term, [Batch.result()]) :: t
  @doc "The result of :map or :allocate."
  @callback native_result(t, :ok | {:ok, Handshake.refs()} | {:error, term}) :: t
  @doc "The store's connection was lost, or is back, before the tube was open."
  @callback store_lost(t) :: t
  @callback store_back(t, Tube.Paths.nonce()) :: t
  @doc "It ends before it was open: tells the peer, then calls `Tube.Handshake.Step.clean/1`."
  @callback give_up(t) :: t
  @doc "The request that writes our XenbusState."
  @callback write_state(t, 0..8) :: Batch.request()
  @doc "The request that writes all of our half of the tube again."
  @callback publish(t) :: Batch.request()
  @doc "The request that removes everything that this tube, or a dead one of its number, has left."
  @callback remove(t) :: Batch.request()
  @doc "Directory of the peer's half."
  @callback peer_node(t) :: Tube.Paths.t()
  @callback watch_peer(t) :: t
  @doc "May the owner still refuse the tube before it is open?"
  @callback refusable?() :: boolean
  @doc "Does it make another attempt when the store comes back during the handshake?"
  @callback restarts?() :: boolean
  @doc "Does it free the rings before it writes state 6, rather than after the peer has?"
  @callback frees_first?() :: boolean

  @limits %{
    handshake: 5_000,
    close: 5_000,
    drain: 5_000,
    grace: 10_000,
    vanished: 100,
    clean: 15_000
  }

  # After these, the tube is open or about to end.
  @late [:open, :closing, :ending, :refusing, :cleaning, :overdue]

  @doc "A machine of `role`, before its first step."
  @spec new(module, Handshake.params(), phase :: atom) :: t
  def new(role, params, phase) do
    true = Value.nonce?(params.nonce)

    %__MODULE__{
      role: role,
      me: params.me,
      peer: params.peer,
      tid: params.tid,
      nonce: params.nonce,
      service: params[:service],
      verdict: Map.get(params, :verdict, :accept),
      limits: Map.merge(@limits, Map.get(params, :limits, %{})),
      phase: phase
    }
  end

  @doc "Returns the operations gathered since the last call."
  @spec flush(t) :: {t, [Handshake.op()]}
  def flush(m), do: {%{m | ops: []}, Enum.reverse(m.ops)}

  ## Events

  @spec handle(t, Handshake.event()) :: {t, [Handshake.op()]}
  def handle(%{phase: :done} = m, _event), do: {m, []}
  def handle(m, event), do: m |> event(event) |> settle() |> flush()

  defp event(%{pending: {:store, tag, replies, n}} = m, {:store, {tag, i}, result}) when i < n do
    replies = Map.put(replies, i, result)

    if map_size(replies) == n,
      do: %{m | pending: nil} |> replied(tag, Enum.map(1..n, &replies[&1 - 1])),
      else: %{m | pending: {:store, tag, replies, n}}
  end

  defp event(m, {:watch, token}), do: mark_dirty(m, token)

  defp event(m, {:watch_failed, _token, reason}),
    do: if(opening?(m), do: fail(m, reason), else: m)

  defp event(m, {:timeout, timer}) do
    if timer in m.timers, do: timeout(%{m | timers: m.timers -- [timer]}, timer), else: m
  end

  defp event(%{pending: {:native, :allocate}} = m, {:allocated, result}),
    do: native_result(m, result)

  defp event(%{pending: {:native, :map}} = m, {:mapped, result}), do: native_result(m, result)

  defp event(%{store: :up} = m, :store_lost), do: store_lost(m)
  defp event(%{store: :down} = m, {:store_back, nonce}), do: store_back(%{m | store: :up}, nonce)
  defp event(m, :fin), do: Open.peer_finished(%{m | fin: true})
  defp event(m, :drained), do: %{m | drained: true}

  defp event(%{phase: phase} = m, event) when phase in [:open, :closing], do: Open.event(m, event)

  defp event(m, event) do
    if opening?(m), do: interrupted(m, event), else: m
  end

  defp interrupted(m, :close), do: fail(m, :closed)
  defp interrupted(m, :owner_down), do: fail(m, :owner_down)
  defp interrupted(m, :suspend), do: fail(m, :suspended)
  defp interrupted(m, :protocol), do: fail(m, :protocol)
  defp interrupted(m, :domain_gone), do: fail(m, :peer_domain_gone)
  defp interrupted(%{rings: true} = m, :gone), do: fail(m, :peer_down)

  defp interrupted(m, {:refuse, word}),
    do: if(m.role.refusable?(), do: fail(m, word), else: m)

  defp interrupted(m, _other), do: m

  defp opening?(m), do: m.phase not in @late

  # Nothing is outstanding: act on what was noted meanwhile.
  defp settle(%{pending: nil, phase: :closing} = m) do
    case Open.advance(m) do
      ^m -> reread_dirty(m)
      m -> settle(m)
    end
  end

  defp settle(%{pending: nil} = m), do: reread_dirty(m)
  defp settle(m), do: m

  defp reread_dirty(%{store: :down} = m), do: m

  defp reread_dirty(m) do
    case Enum.find(watched_tokens(m), &(&1 in m.dirty)) do
      nil -> m
      token -> reread(%{m | dirty: m.dirty -- [token]}, token)
    end
  end

  defp watched_tokens(%{phase: phase}) when phase in [:open, :closing], do: [:peer]
  defp watched_tokens(m), do: m.role.watched_tokens(m.phase)

  defp reread(%{phase: phase} = m, :peer) when phase in [:open, :closing], do: read_peer(m)
  defp reread(m, token), do: m.role.reread(m, token)

  ## Replies

  defp replied(m, tag, results) do
    cond do
      {:error, :store_lost} in results -> store_lost(m)
      tag == :clean -> cleaned(m, hd(results))
      m.phase == :ending -> m.role.give_up(m)
      m.phase in [:open, :closing] -> Open.replied(m, tag, results)
      true -> m.role.replied(m, tag, results)
    end
  end

  defp native_result(m, result) do
    m = %{m | pending: nil, rings: not match?({:error, _}, result)}

    cond do
      m.phase == :overdue -> m |> free() |> stop()
      m.phase == :ending -> m.role.give_up(m)
      m.store == :down -> m.role.store_lost(m)
      m.restart != nil -> m.role.store_back(%{m | restart: nil}, m.restart)
      true -> m.role.native_result(m, result)
    end
  end

  defp store_lost(m) do
    native? = match?({:native, _}, m.pending)
    m = %{m | store: :down, watches: [], dirty: [], pending: if(native?, do: m.pending)}

    cond do
      m.phase in [:open, :closing] -> Open.store_lost(m)
      m.phase == :cleaning -> m
      m.phase == :ending and not native? -> clean(m)
      m.phase == :refusing -> clean(m)
      opening?(m) and not native? -> m.role.store_lost(m)
      # A role that starts again waits for the outstanding operation first.
      opening?(m) and not m.role.restarts?() -> fail(m, :store_lost)
      true -> m
    end
  end

  defp store_back(m, nonce) do
    cond do
      m.phase in [:open, :closing] -> Open.store_back(m)
      m.phase == :cleaning -> clean(m)
      not opening?(m) -> m
      m.pending != nil -> %{m | restart: nonce}
      true -> m.role.store_back(m, nonce)
    end
  end

  defp timeout(m, :limit), do: fail(m, :timeout)

  # The store did not reply within its own limit: our next start removes what is left.
  defp timeout(%{pending: {:native, _}} = m, :clean), do: %{m | phase: :overdue}
  defp timeout(m, :clean), do: m |> free() |> stop()
  defp timeout(%{phase: :refusing} = m, :close), do: finish(m)

  defp timeout(%{phase: phase} = m, timer) when phase in [:open, :closing],
    do: Open.timeout(m, timer)

  defp timeout(m, _timer), do: m

  ## The last step

  # Another attempt has taken the place of ours, and is not ours to remove.
  defp cleaned(m, {:error, :guard}), do: stop(m)

  defp cleaned(%{tries: tries} = m, {:error, _reason}) when tries < 2,
    do: clean(%{m | tries: tries + 1})

  defp cleaned(m, _done), do: stop(m)

  defp stop(m), do: emit(%{cancel_timers(m) | phase: :done}, {:stop, m.ending || :closed})
end
