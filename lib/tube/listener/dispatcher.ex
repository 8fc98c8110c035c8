defmodule Tube.Listener.Dispatcher do
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

  alias Tube.{Connection, Domain, Handshake, Options, Paths, Xenstore}
  alias Tube.Handshake.OpenRequest

  # `instance` names this VM among those of its domain.
  @enforce_keys [:instance]
  defstruct [:instance, domain: nil, services: %{}, watched: %{}, knocks: %{}]

  @type reason :: Tube.Error.reason()

  # A store that does not answer must not hold the door up for long.
  @limit [timeout: 5_000]

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Opens the door to the calling listener's service."
  @spec add(Options.t(), pid) :: :ok | {:error, reason}
  def add(options, owner), do: GenServer.call(__MODULE__, {:add, options, owner}, :infinity)

  @doc "Takes back what is published, for as long as the domain is held."
  @spec withdraw() :: :ok
  def withdraw, do: GenServer.call(__MODULE__, :withdraw, :infinity)

  @doc "Sees to it that all services are published; they are after each attachment, if nothing goes wrong."
  @spec announce() :: :ok | {:error, reason}
  def announce, do: GenServer.call(__MODULE__, :announce, :infinity)

  @impl true
  def init(nil) do
    Process.flag(:trap_exit, true)
    {:ok, %__MODULE__{instance: Base.encode16(:crypto.strong_rand_bytes(8), case: :lower)}}
  end

  @impl true
  def handle_call({:add, options, owner}, {listener, _tag}, state) do
    service = options.service

    with :ok <- free?(state, service),
         {:ok, domain} <- Domain.attach(),
         :ok <- listable?(domain, options),
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

  def handle_call(:withdraw, _from, %{domain: nil} = state), do: {:reply, :ok, state}

  def handle_call(:withdraw, _from, state) do
    for {service, _entry} <- state.services do
      transaction(state, Handshake.close_door(state.domain.domid, service, state.instance))
    end

    {:reply, :ok, unwatch(state)}
  end

  def handle_call(:announce, _from, %{domain: nil, services: services} = state)
      when services != %{} do
    with {:ok, domain} <- Domain.attach(),
         {:ok, state} <- publish(%{state | domain: domain, watched: %{}}) do
      {:reply, :ok, state}
    else
      error -> {:reply, error, state}
    end
  end

  def handle_call(:announce, _from, state), do: {:reply, :ok, state}

  # A service whose owner has just ended is free, although its listener's end is not known here yet. So
  # is one whose listener has: a supervisor starts it again at once.
  defp free?(state, service) do
    case state.services do
      %{^service => %{owner: owner, listener: listener}} ->
        if Process.alive?(owner) and Process.alive?(listener), do: {:error, :eexist}, else: :ok

      _free ->
        :ok
    end
  end

  defp listable?(%{domid: 0}, %{peers: :any}) do
    {:error,
     {:einval,
      "domain 0 may read everything in the store, so it must list its peers: peers: [domid, ...]"}}
  end

  defp listable?(_domain, _options), do: :ok

  @impl true
  # From a tip that needs the store no longer, so that the same peer may ask again. Its end says the same.
  def handle_info({:tip_done, tip}, state), do: {:noreply, over_with(state, tip)}

  def handle_info({:xenstore_watch, token, path}, state) do
    if state.domain, do: Xenstore.ack(state.domain.store, token)
    {:noreply, look(state, path)}
  end

  def handle_info({:DOWN, _monitor, :process, pid, _reason}, state),
    do: {:noreply, state |> over_with(pid) |> remove(pid)}

  def handle_info({:tube_domain, :lost}, state),
    do: {:noreply, %{state | domain: nil, watched: %{}}}

  # Announced already.
  def handle_info({:tube_domain, :attached, domain}, %{domain: domain} = state),
    do: {:noreply, state}

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

  # The library is being stopped: nobody is to wait at a door that nobody is behind.
  @impl true
  def terminate(_reason, %{domain: nil}), do: :ok

  def terminate(_reason, state) do
    for {service, _entry} <- state.services do
      transaction(state, Handshake.close_door(state.domain.domid, service, state.instance))
    end
  end

  ## The door in the store

  defp publish(state) do
    with {:ok, state} <- watch(state), :ok <- write_all(state, Map.keys(state.services)) do
      {:ok, state}
    end
  end

  defp write_all(_state, []), do: :ok

  defp write_all(state, [service | rest]) do
    case transaction(state, Handshake.open_door(state.domain.domid, service, state.instance)) do
      {:ok, _results} -> write_all(state, rest)
      # Another VM of this domain answers for it.
      {:error, :guard} -> {:error, :eexist}
      error -> error
    end
  end

  defp remove(state, listener) do
    case Enum.find(state.services, fn {_name, entry} -> entry.listener == listener end) do
      nil ->
        state

      {service, _entry} ->
        close(%{state | services: Map.delete(state.services, service)}, service)
    end
  end

  defp close(state, service) do
    if state.domain,
      do: transaction(state, Handshake.close_door(state.domain.domid, service, state.instance))

    if state.services == %{}, do: leave(state), else: state
  end

  # Nobody listens any more: no watch of ours costs the store anything, and the domain may go.
  defp leave(state) do
    Domain.unsubscribe()
    if state.domain, do: unwatch(state), else: state
  end

  # And nothing that was on its way is looked at any more.
  defp unwatch(state) do
    for {_path, token} <- state.watched, do: Xenstore.unwatch(state.domain.store, token, @limit)
    %{state | domain: nil, watched: %{}}
  end

  defp transaction(state, {:transaction, requests}) do
    Xenstore.transaction(
      state.domain.store,
      fn transaction -> Handshake.run(requests, &Xenstore.perform_all(transaction, &1)) end,
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
  defp watches(me, peers), do: for(peer <- peers, do: Paths.outbox(peer, me))

  ## Knocks

  defp look(%{domain: nil} = state, _path), do: state

  defp look(%{domain: %{domid: me}} = state, path) do
    case OpenRequest.changed(path, me) do
      {:look, peer, tid} -> knock(state, peer, tid)
      {:list, peer} -> look_at_all(state, peer)
      :ignore -> state
    end
  end

  defp look_at_all(state, peer) do
    case Xenstore.directory(state.domain.store, Paths.outbox(peer, state.domain.domid), @limit) do
      {:ok, names} -> Enum.reduce(OpenRequest.tids(names), state, &knock(&2, peer, &1))
      {:error, _not_ours_to_read} -> state
    end
  end

  # A tube of this number may be under way: its own process watches the nock, and when it ends this
  # is looked at again.
  defp knock(%{domain: domain} = state, peer, tid) do
    if domain != nil and not Map.has_key?(state.knocks, {peer, tid}) do
      requests = OpenRequest.requests(peer, domain.domid, tid)

      case OpenRequest.judge(answers(domain.store, requests), peer, domain.domid, tid) do
        {:knock, knock} -> answer(state, knock, admit(state, knock))
        {:refuse, knock, word} -> answer(state, knock, refuse(state, knock, word))
        :ignore -> state
      end
    else
      state
    end
  end

  # The first answer says whether the others matter.
  defp answers(store, [state | rest]) do
    case Xenstore.perform(store, state, @limit) do
      {:ok, "2"} = knocking -> [knocking | Enum.map(rest, &Xenstore.perform(store, &1, @limit))]
      other -> [other]
    end
  end

  # What knocked meanwhile at the place of this tip is looked at now.
  defp over_with(state, tip) do
    case Enum.find(state.knocks, &match?({_knock, {^tip, _service}}, &1)) do
      nil -> state
      {{peer, tid} = key, _} -> knock(forget(state, key), peer, tid)
    end
  end

  defp answer(state, _knock, :ignore), do: state

  defp answer(state, knock, {verdict, entry}) do
    case Connection.start_tip(state.domain, knock, entry.options, entry.listener, verdict) do
      {:ok, pid} ->
        Process.monitor(pid)
        tip = {pid, entry.options.service}
        %{state | knocks: Map.put(state.knocks, {knock.peer, knock.tid}, tip)}

      {:error, _reason} ->
        state
    end
  end

  # A domain that is not on the list gets no answer at all; others learn why not.
  defp admit(state, %{peer: peer, service: service}) do
    case state.services do
      %{^service => %{options: options} = entry} ->
        cond do
          not listed?(options.peers, peer) -> :ignore
          held(state, peer, service) >= options.max_per_peer -> {{:refuse, :busy}, entry}
          not room?(entry.listener) -> {{:refuse, :busy}, entry}
          true -> {:accept, entry}
        end

      _nobody ->
        :ignore
    end
  end

  # What cannot be understood names no service: whoever may use any service is told.
  defp refuse(state, %{peer: peer}, word) do
    Enum.find_value(state.services, :ignore, fn {service, entry} ->
      if listed?(entry.options.peers, peer) and
           held(state, peer, service) < entry.options.max_per_peer,
         do: {{:refuse, word}, entry}
    end)
  end

  # Asked by message: a listener registers here, so it is not to be called from here.
  defp room?(listener) do
    GenServer.call(listener, :room?)
  catch
    :exit, _gone -> false
  end

  defp listed?(:any, _peer), do: true
  defp listed?(peers, peer), do: peer in peers

  defp held(state, peer, service) do
    Enum.count(state.knocks, fn {{from, _tid}, {_tip, to}} -> from == peer and to == service end)
  end

  defp forget(state, key), do: %{state | knocks: Map.delete(state.knocks, key)}
end
