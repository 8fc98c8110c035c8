defmodule Tube.Handshake.Step do
  @moduledoc false
  # The primitives that both roles are made of: requests to the store, watches, timers, and the ways
  # to end. Each takes a machine and returns it with more operations.

  alias Tube.Handshake
  alias Tube.Handshake.{Machine, Value}
  alias Tube.Xenstore.Batch

  @timers %{
    limit: :handshake,
    close: :close,
    drain: :drain,
    grace: :grace,
    vanished: :vanished,
    clean: :clean
  }

  @spec emit(Machine.t(), Handshake.op()) :: Machine.t()
  def emit(m, op), do: %{m | ops: [op | m.ops]}

  ## Requests

  @doc "Sends a group of requests to the store. Their replies come together, in this order."
  @spec request(Machine.t(), tag :: term, [Batch.request(), ...]) :: Machine.t()
  def request(%{pending: nil} = m, tag, requests) do
    {ops, n} = Enum.map_reduce(requests, 0, &{{:store, {tag, &2}, &1}, &2 + 1})
    Enum.reduce(ops, %{m | pending: {:store, tag, %{}, n}}, &emit(&2, &1))
  end

  @spec native(Machine.t(), :map | :allocate, map) :: Machine.t()
  def native(%{pending: nil} = m, what, spec),
    do: emit(%{m | pending: {:native, what}}, {what, spec})

  @doc "Reads the peer's state, and then whose state it is."
  # In the other order, the state of a later attempt could pass for this one's.
  @spec read_peer(Machine.t()) :: Machine.t()
  def read_peer(m) do
    dir = m.role.peer_node(m)
    request(m, :peer, [{:read, dir <> "/state"}, {:read, dir <> "/nonce"}])
  end

  @doc "Interprets the replies to `read_peer/1`."
  @spec peer(Machine.t(), [Batch.result()]) ::
          {:state, 0..8} | :absent | :other | :impossible | {:error, term}
  def peer(m, [{:ok, state}, {:ok, nonce}]) do
    case Value.state(state) do
      _state when nonce != m.nonce -> :other
      {:ok, state} -> {:state, state}
      :error -> :impossible
    end
  end

  def peer(_m, replies) do
    case Enum.find(replies, &match?({:error, _}, &1)) do
      {:error, reason} when reason in [:enoent, :eacces] -> :absent
      error -> error
    end
  end

  ## Watches

  @spec watch(Machine.t(), Handshake.token(), Tube.Paths.t(), Tube.Paths.t()) :: Machine.t()
  def watch(m, token, path, interest),
    do: emit(%{m | watches: [token | m.watches]}, {:watch, token, path, interest})

  @spec unwatch(Machine.t(), Handshake.token()) :: Machine.t()
  def unwatch(m, token) do
    if token in m.watches,
      do:
        emit(%{m | watches: m.watches -- [token], dirty: m.dirty -- [token]}, {:unwatch, token}),
      else: m
  end

  @doc "Notes that the nodes behind a token must be read again."
  @spec mark_dirty(Machine.t(), Handshake.token()) :: Machine.t()
  def mark_dirty(m, token), do: %{m | dirty: Enum.sort([token | m.dirty -- [token]])}

  ## Timers

  @spec start_timer(Machine.t(), Handshake.timer()) :: Machine.t()
  def start_timer(m, timer) do
    ms = Map.fetch!(m.limits, Map.fetch!(@timers, timer))
    emit(%{m | timers: Enum.sort([timer | m.timers -- [timer]])}, {:timer, timer, max(ms, 1)})
  end

  @spec cancel_timer(Machine.t(), Handshake.timer()) :: Machine.t()
  def cancel_timer(m, timer) do
    if timer in m.timers, do: emit(%{m | timers: m.timers -- [timer]}, {:cancel, timer}), else: m
  end

  @spec cancel_timers(Machine.t()) :: Machine.t()
  def cancel_timers(m), do: Enum.reduce(m.timers, m, &cancel_timer(&2, &1))

  ## States

  @doc "Notes that our XenbusState has been written."
  @spec own_state(Machine.t(), 0..8) :: Machine.t()
  def own_state(m, state), do: emit(%{m | own_state: state}, {:state, state})

  @doc "Notes the peer's XenbusState."
  @spec peer_state(Machine.t(), 0..8 | :gone) :: Machine.t()
  def peer_state(%{peer_state: state} = m, state), do: m
  def peer_state(m, :gone), do: %{m | peer_state: :gone}
  def peer_state(m, state), do: emit(%{m | peer_state: state}, {:peer_state, state})

  ## Ends

  @doc "Reports that there is no tube, then leaves the handshake and cleans up."
  @spec fail(Machine.t(), Handshake.reason()) :: Machine.t()
  def fail(m, reason) do
    m = emit(%{m | ending: reason, phase: :ending}, {:failed, reason})
    if m.pending, do: finish(m), else: m.role.give_up(m)
  end

  @doc "Cleans up once no request is outstanding: a late one could undo the cleanup."
  @spec finish(Machine.t()) :: Machine.t()
  def finish(%{pending: nil} = m), do: clean(m)
  def finish(m), do: start_timer(%{cancel_timers(m) | phase: :ending}, :clean)

  @doc "Frees the rings and removes our nodes."
  @spec clean(Machine.t()) :: Machine.t()
  def clean(m) do
    m = Enum.reduce(m.watches, free(m), &emit(&2, {:unwatch, &1}))
    m = start_timer(%{cancel_timers(m) | phase: :cleaning, watches: [], dirty: []}, :clean)
    if m.store == :up, do: request(m, :clean, [m.role.remove(m)]), else: m
  end

  @spec free(Machine.t()) :: Machine.t()
  def free(%{rings: true} = m), do: emit(%{m | rings: false}, :free)
  def free(m), do: m
end
