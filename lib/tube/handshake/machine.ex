defmodule Tube.Handshake.Machine do
  @moduledoc false
  # What both roles share: the state of a machine, how it asks the store, and how it ends.
  #
  # A machine has at most one group of questions open. While it waits for the answers, whatever
  # else happens is only noted: a watch makes its token dirty, a wish to end is written down. When
  # the answers are in, the machine looks at its notes. So there is one order of events for each
  # party, and nothing is ever acted on twice.

  alias Tube.Handshake
  alias Tube.Handshake.{Open, Value}

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
    # nil, {:ask, tag, results by number, how many}, or {:native, :map | :allocate}
    pending: nil,
    # Tokens of watches that fired and have not been looked into.
    dirty: [],
    watches: [],
    timers: [],
    store: :up,
    # Do we hold rings (and so owe a :free)?
    rings: false,
    refs: nil,
    # Nock: who answered for the service when we knocked. nil: we have not knocked.
    instance: nil,
    # Tip: the nock has entered, and an `error` node would be read.
    entered: false,
    # Own XenbusState as written, and the peer's as seen; :gone when its half is no more.
    own: nil,
    seen: nil,
    fin: false,
    drained: false,
    # The owner wants no more of the tube.
    asked: false,
    # Why it ends, once that is decided.
    ending: nil,
    # Nonce of the attempt that follows an operation which must finish first.
    restart: nil,
    tries: 0,
    ops: []
  ]

  @type t :: %__MODULE__{}

  @doc "Names of the tokens that a phase acts on, in order of importance."
  @callback heeds(phase :: atom) :: [Handshake.token()]
  @doc "Asks what a dirty token in this phase calls for."
  @callback look(t, Handshake.token()) :: t
  @doc "The answers to a group of questions asked by the role."
  @callback answered(t, tag :: term, [Handshake.result()]) :: t
  @doc "The result of :map or :allocate."
  @callback native(t, :ok | {:ok, Handshake.refs()} | {:error, term}) :: t
  @doc "The store's connection was lost, or is back, before the tube was open."
  @callback lost(t) :: t
  @callback back(t, Tube.Paths.nonce()) :: t
  @doc "It ends before it was open: say good-bye, then `clean/1`."
  @callback give_up(t) :: t
  @doc "The request that writes our XenbusState."
  @callback write_state(t, 0..8) :: Handshake.request()
  @doc "All of our half of the tube, anew."
  @callback publish(t) :: Handshake.request()
  @doc "The request that removes all that this tube, or a dead one of its number, may have left."
  @callback remove(t) :: Handshake.request()
  @doc "Directory of the peer's half."
  @callback theirs(t) :: Tube.Paths.t()
  @callback watch_peer(t) :: t

  @limits %{
    handshake: 5_000,
    close: 5_000,
    drain: 5_000,
    grace: 10_000,
    vanished: 100,
    clean: 15_000
  }
  @timers %{
    limit: :handshake,
    close: :close,
    drain: :drain,
    grace: :grace,
    vanished: :vanished,
    clean: :clean
  }

  # After these, the tube is open or on its way out.
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

  @doc "Hands out the operations gathered since the last time."
  @spec flush(t) :: {t, [Handshake.op()]}
  def flush(m), do: {%{m | ops: []}, Enum.reverse(m.ops)}

  ## Events

  @spec handle(t, Handshake.event()) :: {t, [Handshake.op()]}
  def handle(%{phase: :done} = m, _event), do: {m, []}
  def handle(m, event), do: m |> event(event) |> settle() |> flush()

  defp event(%{pending: {:ask, tag, results, n}} = m, {:store, {tag, i}, result}) when i < n do
    results = Map.put(results, i, result)

    if map_size(results) == n,
      do: %{m | pending: nil} |> answered(tag, Enum.map(1..n, &results[&1 - 1])),
      else: %{m | pending: {:ask, tag, results, n}}
  end

  defp event(m, {:watch, token}), do: soil(m, token)

  defp event(m, {:watch_failed, _token, reason}),
    do: if(opening?(m), do: fail(m, reason), else: m)

  defp event(m, {:timeout, timer}) do
    if timer in m.timers, do: timeout(%{m | timers: m.timers -- [timer]}, timer), else: m
  end

  defp event(%{pending: {:native, :allocate}} = m, {:allocated, result}), do: native(m, result)
  defp event(%{pending: {:native, :map}} = m, {:mapped, result}), do: native(m, result)

  defp event(%{store: :up} = m, :store_lost), do: lost(m)
  defp event(%{store: :down} = m, {:store_back, nonce}), do: back(%{m | store: :up}, nonce)
  defp event(m, :fin), do: Open.finished(%{m | fin: true})
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
  defp interrupted(%{role: Handshake.Tip} = m, {:refuse, word}), do: fail(m, word)
  defp interrupted(m, _other), do: m

  defp opening?(m), do: m.phase not in @late

  # Nothing is open any more: look into what was noted meanwhile.
  defp settle(%{pending: nil, phase: :closing} = m) do
    case Open.advance(m) do
      ^m -> look(m)
      m -> settle(m)
    end
  end

  defp settle(%{pending: nil} = m), do: look(m)
  defp settle(m), do: m

  defp look(%{store: :down} = m), do: m

  defp look(m) do
    case Enum.find(heeds(m), &(&1 in m.dirty)) do
      nil -> m
      token -> look(%{m | dirty: m.dirty -- [token]}, token)
    end
  end

  defp heeds(%{phase: phase}) when phase in [:open, :closing], do: [:peer]
  defp heeds(m), do: m.role.heeds(m.phase)

  defp look(%{phase: phase} = m, :peer) when phase in [:open, :closing], do: ask_peer(m)
  defp look(m, token), do: m.role.look(m, token)

  ## Answers

  defp answered(m, tag, results) do
    cond do
      {:error, :store_lost} in results -> lost(m)
      tag == :clean -> cleaned(m, hd(results))
      m.phase == :ending -> m.role.give_up(m)
      m.phase in [:open, :closing] -> Open.answered(m, tag, results)
      true -> m.role.answered(m, tag, results)
    end
  end

  defp native(m, result) do
    m = %{m | pending: nil, rings: not match?({:error, _}, result)}

    cond do
      m.phase == :overdue -> m |> free() |> stop()
      m.phase == :ending -> m.role.give_up(m)
      m.store == :down -> m.role.lost(m)
      m.restart != nil -> m.role.back(%{m | restart: nil}, m.restart)
      true -> m.role.native(m, result)
    end
  end

  defp lost(m) do
    native? = match?({:native, _}, m.pending)
    m = %{m | store: :down, watches: [], dirty: [], pending: if(native?, do: m.pending)}

    cond do
      m.phase in [:open, :closing] -> Open.lost(m)
      m.phase == :cleaning -> m
      m.phase == :ending and not native? -> clean(m)
      m.phase == :refusing -> clean(m)
      opening?(m) and not native? -> m.role.lost(m)
      # A tip does not start again; a nock waits for what it has asked for.
      opening?(m) and m.role == Handshake.Tip -> fail(m, :store_lost)
      true -> m
    end
  end

  defp back(m, nonce) do
    cond do
      m.phase in [:open, :closing] -> Open.back(m)
      m.phase == :cleaning -> clean(m)
      not opening?(m) -> m
      m.pending != nil -> %{m | restart: nonce}
      true -> m.role.back(m, nonce)
    end
  end

  defp timeout(m, :limit), do: fail(m, :timeout)

  # The store did not answer within its own limit: what is left waits for our next start.
  defp timeout(%{pending: {:native, _}} = m, :clean), do: %{m | phase: :overdue}
  defp timeout(m, :clean), do: m |> free() |> stop()
  defp timeout(%{phase: :refusing} = m, :close), do: finish(m)

  defp timeout(%{phase: phase} = m, timer) when phase in [:open, :closing],
    do: Open.timeout(m, timer)

  defp timeout(m, _timer), do: m

  ## Ends

  @doc "No tube: tells why, then goes on to say good-bye and to clean up."
  @spec fail(t, Handshake.reason()) :: t
  def fail(m, reason) do
    m = emit(%{m | ending: reason, phase: :ending}, {:failed, reason})
    if m.pending, do: finish(m), else: m.role.give_up(m)
  end

  @doc "Cleans up as soon as no question is open, whose answer could undo what is cleaned up."
  @spec finish(t) :: t
  def finish(%{pending: nil} = m), do: clean(m)
  def finish(m), do: start(%{cancel(m) | phase: :ending}, :clean)

  @doc "Gives back the rings and takes away our nodes."
  @spec clean(t) :: t
  def clean(m) do
    m = Enum.reduce(m.watches, free(m), &emit(&2, {:unwatch, &1}))
    m = start(%{cancel(m) | phase: :cleaning, watches: [], dirty: []}, :clean)
    if m.store == :up, do: ask(m, :clean, [m.role.remove(m)]), else: m
  end

  # Another attempt stands where ours was: that one is not ours to remove.
  defp cleaned(m, {:error, :guard}), do: stop(m)

  defp cleaned(%{tries: tries} = m, {:error, _reason}) when tries < 2,
    do: clean(%{m | tries: tries + 1})

  defp cleaned(m, _done), do: stop(m)

  defp stop(m), do: emit(%{cancel(m) | phase: :done}, {:stop, m.ending || :closed})

  ## Steps that roles are made of

  @spec emit(t, Handshake.op()) :: t
  def emit(m, op), do: %{m | ops: [op | m.ops]}

  @doc "Asks the store several things at once; the answers come together, in this order."
  @spec ask(t, tag :: term, [Handshake.request(), ...]) :: t
  def ask(%{pending: nil} = m, tag, requests) do
    {ops, n} = Enum.map_reduce(requests, 0, &{{:store, {tag, &2}, &1}, &2 + 1})
    Enum.reduce(ops, %{m | pending: {:ask, tag, %{}, n}}, &emit(&2, &1))
  end

  @spec ask_native(t, :map | :allocate, map) :: t
  def ask_native(%{pending: nil} = m, what, spec),
    do: emit(%{m | pending: {:native, what}}, {what, spec})

  @doc "Asks for the peer's state, and then whose state it is."
  # The other order would let the state of a later attempt pass for this one's.
  @spec ask_peer(t) :: t
  def ask_peer(m) do
    dir = m.role.theirs(m)
    ask(m, :peer, [{:read, dir <> "/state"}, {:read, dir <> "/nonce"}])
  end

  @doc "What the answers to `ask_peer/1` mean."
  @spec peer(t, [Handshake.result()]) ::
          {:state, 0..8} | :absent | :other | :impossible | {:error, term}
  def peer(m, [{:ok, state}, {:ok, nonce}]) do
    case Value.state(state) do
      _state when nonce != m.nonce -> :other
      {:ok, state} -> {:state, state}
      :error -> :impossible
    end
  end

  def peer(_m, answers) do
    case Enum.find(answers, &match?({:error, _}, &1)) do
      {:error, reason} when reason in [:enoent, :eacces] -> :absent
      error -> error
    end
  end

  @doc "Notes that what a token watches must be looked at."
  @spec soil(t, Handshake.token()) :: t
  def soil(m, token), do: %{m | dirty: Enum.sort([token | m.dirty -- [token]])}

  @spec watch(t, Handshake.token(), Tube.Paths.t(), Tube.Paths.t()) :: t
  def watch(m, token, path, interest),
    do: emit(%{m | watches: [token | m.watches]}, {:watch, token, path, interest})

  @spec unwatch(t, Handshake.token()) :: t
  def unwatch(m, token) do
    if token in m.watches,
      do:
        emit(%{m | watches: m.watches -- [token], dirty: m.dirty -- [token]}, {:unwatch, token}),
      else: m
  end

  @spec start(t, Handshake.timer()) :: t
  def start(m, timer) do
    ms = Map.fetch!(m.limits, Map.fetch!(@timers, timer))
    emit(%{m | timers: Enum.sort([timer | m.timers -- [timer]])}, {:timer, timer, max(ms, 1)})
  end

  @spec cancel(t, Handshake.timer()) :: t
  def cancel(m, timer) do
    if timer in m.timers, do: emit(%{m | timers: m.timers -- [timer]}, {:cancel, timer}), else: m
  end

  # All of them.
  defp cancel(m), do: Enum.reduce(m.timers, m, &cancel(&2, &1))

  @doc "Notes that our XenbusState has been written."
  @spec wrote(t, 0..8) :: t
  def wrote(m, state), do: emit(%{m | own: state}, {:state, state})

  @doc "Notes the peer's XenbusState."
  @spec saw(t, 0..8 | :gone) :: t
  def saw(%{seen: state} = m, state), do: m
  def saw(m, :gone), do: %{m | seen: :gone}
  def saw(m, state), do: emit(%{m | seen: state}, {:peer_state, state})

  @spec free(t) :: t
  def free(%{rings: true} = m), do: emit(%{m | rings: false}, :free)
  def free(m), do: m
end
