defmodule Tube.Door do
  @moduledoc false
  # What lets knocks in: this domain's door in the store, the services behind it, and the watch
  # that tells of who knocks.
  #
  # The watch is set before the door is written, so no knock is missed. With `peers: :any` it is one
  # watch on /local/domain: a guest gets events for what it may read there, and a nock lets its tip
  # read its own directory. Domain 0 may read everything and would be told of everything, so there,
  # and when all services name their peers, it is one watch for each peer.
  #
  # One event is dealt with at a time, and domains take turns (`Tube.Xenstore.Backlog`), so a domain
  # that knocks without end delays others by one knock.

  use GenServer

  alias Tube.{Connection, Domain, Handshake, Listener, Options, Paths, Xenstore}

  defstruct domain: nil, services: %{}, watched: %{}, knocks: %{}

  @type reason :: Tube.Error.reason()

  # A store that does not answer must not hold the door up for long.
  @limit [timeout: 2_000]

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Opens the door to the calling listener's service."
  @spec add(Options.t(), pid) :: :ok | {:error, reason}
  def add(options, owner), do: GenServer.call(__MODULE__, {:add, options, owner}, :infinity)

  @impl true
  def init(nil), do: {:ok, %__MODULE__{}}

  @impl true
  def handle_call({:add, options, owner}, {listener, _tag}, state) do
    service = options.service

    with :ok <- free?(state, service),
         {:ok, domain} <- Domain.attach(),
         :ok <- listed?(domain, options),
         entry = %{listener: listener, owner: owner, options: options},
         :ok <- Domain.subscribe(),
         state = %{state | domain: domain, services: Map.put(state.services, service, entry)},
         {:ok, state} <- publish(state) do
      Process.monitor(listener)
      {:reply, :ok, state}
    else
      {:error, reason} -> {:reply, {:error, reason}, state}
    end
  end

  # A service whose owner has just ended is free, although its listener's end is not known here yet.
  defp free?(state, service) do
    case state.services do
      %{^service => %{owner: owner}} -> if Process.alive?(owner), do: {:error, :eexist}, else: :ok
      _free -> :ok
    end
  end

  defp listed?(%{domid: 0}, %{peers: :any}) do
    {:error,
     {:einval,
      "domain 0 may read everything in the store, so it must list its peers: peers: [domid, ...]"}}
  end

  defp listed?(_domain, _options), do: :ok

  @impl true
  def handle_info({:xenstore_watch, token, path}, state) do
    if state.domain, do: Xenstore.ack(state.domain.store, token)
    {:noreply, look(state, Paths.parse(path))}
  end

  # A tip's process has ended: what knocked meanwhile at its place is looked at now.
  def handle_info({:DOWN, monitor, :process, pid, _reason}, state) do
    case Map.pop(state.knocks, monitor) do
      {nil, _knocks} -> {:noreply, remove(state, pid)}
      {{peer, tid}, knocks} -> {:noreply, knock(%{state | knocks: knocks}, peer, tid)}
    end
  end

  def handle_info({:tube_domain, :lost}, state),
    do: {:noreply, %{state | domain: nil, watched: %{}}}

  def handle_info({:tube_domain, :attached, domain}, state) do
    state = %{state | domain: domain, watched: %{}}

    with true <- state.services != %{},
         {:ok, published} <- publish(state) do
      {:noreply, published}
    else
      # Lost again meanwhile: the next attachment publishes.
      _not_now -> {:noreply, state}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  ## The door in the store

  defp publish(state) do
    with {:ok, state} <- watch(state),
         {:ok, _} <-
           transaction(
             state,
             Handshake.Door.open(state.domain.domid, peers(state), Map.keys(state.services))
           ) do
      {:ok, state}
    end
  end

  defp remove(state, listener) do
    case Enum.find(state.services, fn {_name, entry} -> entry.listener == listener end) do
      nil ->
        state

      {service, _entry} ->
        state = %{state | services: Map.delete(state.services, service)}
        close(state, service)
    end
  end

  defp close(%{domain: nil, services: none} = state, _service) when none == %{} do
    Domain.unsubscribe()
    state
  end

  defp close(%{domain: nil} = state, _service), do: state

  defp close(%{services: none} = state, _service) when none == %{} do
    transaction(state, Handshake.Door.close(state.domain.domid))

    for {path, token} <- state.watched,
        path,
        do: Xenstore.unwatch(state.domain.store, token, @limit)

    Domain.unsubscribe()
    %{state | watched: %{}, domain: nil}
  end

  defp close(state, service) do
    transaction(state, Handshake.Door.remove(state.domain.domid, service))
    state
  end

  defp transaction(state, requests) do
    Xenstore.transaction(
      state.domain.store,
      fn transaction -> Handshake.run(requests, &Xenstore.perform(transaction, &1)) end,
      @limit
    )
  end

  # Everybody, or the union of all that any service lists.
  defp peers(state) do
    lists = for {_name, entry} <- state.services, do: entry.options.peers
    if :any in lists, do: :any, else: lists |> List.flatten() |> Enum.uniq() |> Enum.sort()
  end

  defp watch(state) do
    Enum.reduce_while(watches(state.domain.domid, peers(state)), {:ok, state}, fn path,
                                                                                  {:ok, state} ->
      if Map.has_key?(state.watched, path) do
        {:cont, {:ok, state}}
      else
        token = {__MODULE__, make_ref()}

        case Xenstore.watch(state.domain.store, path, path, token, @limit) do
          :ok -> {:cont, {:ok, %{state | watched: Map.put(state.watched, path, token)}}}
          error -> {:halt, error}
        end
      end
    end)
  end

  defp watches(_me, :any), do: [Paths.domains()]
  defp watches(me, peers), do: for(peer <- peers, do: Paths.knocks(peer, me))

  ## Knocks

  # The nock writes its state last, so nothing before it is worth a look. A path above that says
  # that something below may have changed: then all that this domain asks of us is looked at.
  defp look(%{domain: nil} = state, _path), do: state

  defp look(%{domain: %{domid: me}} = state, path) do
    case path do
      {:knock, peer, ^me, tid, key} when key in [nil, "state"] -> knock(state, peer, tid)
      {:knocks, peer, ^me} -> look_at_all(state, peer)
      {:domain, peer} -> look_at_all(state, peer)
      _nothing_of_ours -> state
    end
  end

  defp look_at_all(state, peer) do
    case Xenstore.directory(state.domain.store, Paths.knocks(peer, state.domain.domid), @limit) do
      {:ok, names} ->
        for name <- names, {:ok, tid} <- [Paths.tid(name)], reduce: state do
          state -> knock(state, peer, tid)
        end

      {:error, _not_ours_to_read} ->
        state
    end
  end

  defp knock(%{domain: nil} = state, _peer, _tid), do: state

  defp knock(state, peer, tid) do
    # A tube of this number is under way: its own process watches the nock, and when it ends
    # this is looked at again.
    if Registry.lookup(Tube.Registry, {:tip, peer, tid}) == [] do
      read = &Xenstore.read(state.domain.store, &1, @limit)

      case Handshake.Knock.read(state.domain.domid, peer, tid, read) do
        {:ok, knock} -> answer(state, knock)
        :ignore -> state
      end
    else
      state
    end
  end

  defp answer(state, knock) do
    case admit(state, knock) do
      :ignore ->
        state

      {verdict, entry} ->
        case Connection.answer(state.domain, knock, entry.options, entry.listener, verdict) do
          {:ok, pid} -> remember(state, pid, knock)
          {:error, _reason} -> state
        end
    end
  end

  # A domain that is not on the list gets no answer at all; others learn why not.
  defp admit(state, %{peer: peer, service: service}) do
    case state.services do
      %{^service => %{options: options} = entry} ->
        cond do
          options.peers != :any and peer not in options.peers -> :ignore
          held(state, peer) >= options.max_per_peer -> {{:refuse, :busy}, entry}
          not Listener.room?(entry.listener) -> {{:refuse, :busy}, entry}
          true -> {:accept, entry}
        end

      _nobody ->
        :ignore
    end
  end

  defp held(state, peer),
    do: Enum.count(state.knocks, fn {_monitor, {from, _tid}} -> from == peer end)

  defp remember(state, pid, knock) do
    %{state | knocks: Map.put(state.knocks, Process.monitor(pid), {knock.peer, knock.tid})}
  end
end
