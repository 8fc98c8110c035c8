defmodule Tube.Listener.Dispatcher do
  @moduledoc false
  # Lets open requests in: publishes the services of this domain, watches for open requests, and
  # starts a tip for each of them.
  #
  # The watch is set before a service is published, so no request is missed. With `peers: :any` it
  # is one watch on /local/domain: a guest gets events for the nodes that it may read there, and a
  # nock lets its tip read its outbox. Domain 0 may read everything and would get every event, so
  # there, and when all services list their peers, it is one watch for each peer.
  #
  # One event is handled at a time, and domains take turns (`Tube.Xenstore.Backlog`), so a domain
  # that sends requests without end delays others by one request.

  use GenServer

  alias Tube.{Connection, Domain, Options, Paths, Xenstore}
  alias Tube.Handshake.{Directory, OpenRequest}

  # `instance` identifies this VM among those of its domain. `services` maps a name to its
  # registration: %{listener: pid, owner: pid, options: Options.t()}. `tips` maps {peer, tid} to the
  # process of the tip and its service.
  @enforce_keys [:instance]
  defstruct [:instance, domain: nil, services: %{}, watched: %{}, tips: %{}]

  @type reason :: Tube.Error.reason()

  # A store that does not reply must not block the dispatcher for long.
  @limit [timeout: 5_000]

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Publishes the service of the calling listener."
  @spec add(Options.t(), pid) :: :ok | {:error, reason}
  def add(options, owner), do: GenServer.call(__MODULE__, {:add, options, owner}, :infinity)

  @doc "Withdraws all services while the domain is held."
  @spec withdraw() :: :ok
  def withdraw, do: GenServer.call(__MODULE__, :withdraw, :infinity)

  @doc "Makes sure that all services are published. Each attachment does it, unless it fails."
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
         registration = %{listener: listener, owner: owner, options: options},
         :ok <- Domain.subscribe(),
         services = Map.put(state.services, service, registration),
         {:ok, state} <- publish(%{state | domain: domain, services: services}) do
      Process.monitor(listener)
      {:reply, :ok, state}
    else
      {:error, reason} -> {:reply, {:error, reason}, state}
    end
  end

  def handle_call(:withdraw, _from, %{domain: nil} = state), do: {:reply, :ok, state}

  def handle_call(:withdraw, _from, state) do
    withdraw_all(state)
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

  # A service is free as soon as its owner or its listener has ended, even if the :DOWN message has
  # not arrived yet: a supervisor restarts a listener at once.
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
  # The tip no longer needs the store, so its peer may open again under this number. The tip's end
  # means the same.
  def handle_info({:tip_done, tip}, state), do: {:noreply, tip_done(state, tip)}

  def handle_info({:xenstore_watch, token, path}, state) do
    if state.domain, do: Xenstore.ack(state.domain.store, token)
    {:noreply, reread(state, path)}
  end

  def handle_info({:DOWN, _monitor, :process, pid, _reason}, state),
    do: {:noreply, state |> tip_done(pid) |> remove(pid)}

  def handle_info({:tube_domain, :lost}, state),
    do: {:noreply, %{state | domain: nil, watched: %{}}}

  # Already published.
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

  # The library is stopping: a nock should not wait for services without an instance.
  @impl true
  def terminate(_reason, %{domain: nil}), do: :ok
  def terminate(_reason, state), do: withdraw_all(state)

  ## The service directory

  defp publish(state) do
    with {:ok, state} <- watch(state), :ok <- publish_all(state, Map.keys(state.services)) do
      {:ok, state}
    end
  end

  defp publish_all(_state, []), do: :ok

  defp publish_all(state, [service | rest]) do
    case batch(state, Directory.publish_service(state.domain.domid, service, state.instance)) do
      {:ok, _results} -> publish_all(state, rest)
      # Another VM of this domain serves it.
      {:error, :guard} -> {:error, :eexist}
      error -> error
    end
  end

  defp withdraw_all(state) do
    for {service, _registration} <- state.services, do: withdraw(state, service)
  end

  defp withdraw(state, service),
    do: batch(state, Directory.withdraw_service(state.domain.domid, service, state.instance))

  defp remove(state, listener) do
    case Enum.find(state.services, fn {_service, at} -> at.listener == listener end) do
      nil ->
        state

      {service, _registration} ->
        if state.domain, do: withdraw(state, service)
        leave(%{state | services: Map.delete(state.services, service)})
    end
  end

  # Without services no watch costs the store anything, and the domain may go.
  defp leave(%{services: none} = state) when none == %{} do
    Domain.unsubscribe()
    if state.domain, do: unwatch(state), else: state
  end

  defp leave(state), do: state

  # Events that are under way find no domain, and are ignored.
  defp unwatch(state) do
    for {_path, token} <- state.watched, do: Xenstore.unwatch(state.domain.store, token, @limit)
    %{state | domain: nil, watched: %{}}
  end

  defp batch(state, {:transaction, steps}),
    do: Xenstore.batch(state.domain.store, steps, @limit)

  # Any domain, or the union of the peers that the services list.
  defp peers(state) do
    lists = for {_service, registration} <- state.services, do: registration.options.peers
    if :any in lists, do: :any, else: lists |> List.flatten() |> Enum.uniq() |> Enum.sort()
  end

  defp watch(state) do
    state.domain.domid |> watches(peers(state)) |> Enum.reduce_while({:ok, state}, &watch/2)
  end

  defp watch(path, {:ok, state}) when is_map_key(state.watched, path), do: {:cont, {:ok, state}}

  defp watch(path, {:ok, state}) do
    token = {__MODULE__, make_ref()}

    case Xenstore.watch(state.domain.store, path, path, token, @limit) do
      :ok -> {:cont, {:ok, %{state | watched: Map.put(state.watched, path, token)}}}
      error -> {:halt, error}
    end
  end

  defp watches(_me, :any), do: [Paths.domains()]
  defp watches(me, peers), do: for(peer <- peers, do: Paths.outbox(peer, me))

  ## Open requests

  defp reread(%{domain: nil} = state, _path), do: state

  defp reread(%{domain: %{domid: me}} = state, path) do
    case OpenRequest.changed(path, me) do
      {:read, peer, tid} -> read_request(state, peer, tid)
      {:list, peer} -> read_requests(state, peer)
      :ignore -> state
    end
  end

  defp read_requests(state, peer) do
    case Xenstore.directory(state.domain.store, Paths.outbox(peer, state.domain.domid), @limit) do
      {:ok, names} -> Enum.reduce(OpenRequest.tids(names), state, &read_request(&2, peer, &1))
      {:error, _not_ours_to_read} -> state
    end
  end

  # If a tip of this number is at work, it watches the nock itself. Its request is read again once
  # the tip is done.
  defp read_request(%{domain: domain} = state, peer, tid) do
    if domain != nil and not Map.has_key?(state.tips, {peer, tid}) do
      replies = read(domain.store, OpenRequest.reads(peer, domain.domid, tid))

      case OpenRequest.parse(replies, peer, domain.domid, tid) do
        {:request, request} -> start_tip(state, request, admit(state, request))
        {:refuse, request, word} -> start_tip(state, request, refuse(state, request, word))
        :ignore -> state
      end
    else
      state
    end
  end

  # The state is read first: unless it is 2, the rest does not matter.
  defp read(store, [state | rest]) do
    case Xenstore.perform(store, state, @limit) do
      {:ok, "2"} = open -> [open | Enum.map(rest, &Xenstore.perform(store, &1, @limit))]
      other -> [other]
    end
  end

  # A new request under the number of this tip has had to wait for it.
  defp tip_done(state, tip) do
    case Enum.find(state.tips, &match?({_key, {^tip, _service}}, &1)) do
      nil ->
        state

      {{peer, tid} = key, _tip} ->
        read_request(%{state | tips: Map.delete(state.tips, key)}, peer, tid)
    end
  end

  defp start_tip(state, _request, :ignore), do: state

  defp start_tip(state, request, {verdict, %{options: options, listener: listener}}) do
    case Connection.start_tip(state.domain, request, options, listener, verdict) do
      {:ok, pid} ->
        Process.monitor(pid)
        tips = Map.put(state.tips, {request.peer, request.tid}, {pid, options.service})
        %{state | tips: tips}

      {:error, _reason} ->
        state
    end
  end

  # A domain that is not on the list gets no reply at all; others get the reason.
  defp admit(state, %{peer: peer, service: service}) do
    case state.services do
      %{^service => %{options: options} = registration} ->
        cond do
          not listed?(options.peers, peer) -> :ignore
          count(state, peer, service) >= options.max_per_peer -> {{:refuse, :busy}, registration}
          not room?(registration.listener) -> {{:refuse, :busy}, registration}
          true -> {:accept, registration}
        end

      _no_such_service ->
        :ignore
    end
  end

  # A malformed request names no service: refuse it if the peer may use any service.
  defp refuse(state, %{peer: peer}, word) do
    Enum.find_value(state.services, :ignore, fn {service, %{options: options} = registration} ->
      if listed?(options.peers, peer) and count(state, peer, service) < options.max_per_peer,
        do: {{:refuse, word}, registration}
    end)
  end

  # By message, since `Tube.Listener` depends on this module.
  defp room?(listener) do
    GenServer.call(listener, :room?)
  catch
    :exit, _gone -> false
  end

  defp listed?(:any, _peer), do: true
  defp listed?(peers, peer), do: peer in peers

  # The tips that this peer has at this service.
  defp count(state, peer, service) do
    Enum.count(state.tips, fn {{from, _tid}, {_tip, to}} -> from == peer and to == service end)
  end
end
