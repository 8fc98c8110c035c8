defmodule Tube.Handshake.Choices do
  @moduledoc false
  # Steps that a run of the model may or may not take, as far as the budget allows.

  alias Tube.Paths
  alias Tube.Handshake.{Directory, Endpoint, Invariants, Model, TestStore}

  import Endpoint,
    only: [changed: 3, event: 3, free: 2, others: 2, spend: 2, start: 4, update: 3]

  @nock 7
  @tip 5
  @intruder 9
  @tid 0
  @service "default"
  @again "00000000000000b0"

  @doc "All choices in a state."
  def all(w) do
    publishes(w) ++
      closes(w) ++
      crashes(w) ++
      spurious(w) ++ intruders(w) ++ siblings(w) ++ losses(w) ++ restarts(w)
  end

  defp publishes(%{service: :absent, crashed: []} = w), do: [{:publish, Model.publish(w, "one")}]
  defp publishes(_w), do: []

  defp closes(w) do
    for {name, p} <- w.endpoints, p.role in w.budget.close, p.m.phase != :done do
      w = put_in(w.budget.close, w.budget.close -- [p.role])
      # FIN is set in the page before the machine gets the event.
      w =
        if :start in p.reported,
          do:
            Enum.reduce(others(w, name), w, fn other, w ->
              update(w, other, &%{&1 | fin: :sent})
            end),
          else: w

      {{name, :close}, event(w, name, :close)}
    end
  end

  defp crashes(w) do
    for {role, how} <- w.budget.crash,
        Enum.any?(w.endpoints, fn {_, p} -> p.role == role end) or role == :tip do
      w = put_in(w.budget.crash, [])
      names = for {name, %{role: ^role}} <- w.endpoints, do: name

      w =
        Enum.reduce(names, w, fn name, w ->
          w |> free(name) |> Map.update!(:endpoints, &Map.delete(&1, name))
        end)

      w = %{w | crashed: [{role, how} | w.crashed]}
      w = if role == :tip, do: %{w | woken: false, service: {:stale, w.service}}, else: w
      {{role, :crash, how}, if(how == :domain, do: destroyed(w, role), else: w)}
    end
  end

  defp destroyed(w, role) do
    {store, fired} = TestStore.destroy(w.store, domid(role))
    changed(w, store, fired)
  end

  defp domid(:nock), do: @nock
  defp domid(:tip), do: @tip

  defp spurious(%{budget: %{spurious: 0}}), do: []

  defp spurious(w) do
    for {name, p} <- w.endpoints,
        p.m.phase != :done,
        not p.down,
        token <- [:services, :tip_node, :peer] -- p.fired do
      {{name, :spurious, token}, w |> spend(:spurious) |> event(name, {:watch, token})}
    end
  end

  defp intruders(%{budget: %{intruder: 0}}), do: []

  defp intruders(w) do
    for {request, store, fired} <- allowed(w.store, w.flavour) do
      {{:intruder, request}, w |> spend(:intruder) |> changed(store, fired)}
    end
  end

  # Every request of domain 9 that the store allows, tried at every path. Many states share a store.
  defp allowed(store, flavour) do
    key = {:allowed, :erlang.phash2({store, flavour}, 4_294_967_296)}
    with nil <- Process.get(key), do: tap(try_all(store, flavour), &Process.put(key, &1))
  end

  defp try_all(store, flavour) do
    for path <- Enum.uniq(Map.keys(store) ++ universe()),
        not Invariants.own?(path),
        request <- [
          {:write, path, "3"},
          {:rm, path},
          {:mkdir, path},
          {:set_perms, path, [b: @intruder]}
        ],
        {result, changed, fired} = TestStore.request(store, flavour, @intruder, request),
        result == :ok and changed != store,
        do: {request, changed, fired}
  end

  defp universe do
    nock_node = Paths.nock_node(@nock, @tip, @tid)
    tip_node = Paths.tip_node(@tip, @nock, @tid)

    [
      Paths.service_directory(@tip),
      Paths.service(@tip, @service),
      Paths.inbox(@tip, @nock),
      Paths.inbox(@tip, @intruder),
      Paths.outbox(@nock, @tip),
      nock_node,
      tip_node
    ] ++
      for(
        dir <- [nock_node, tip_node],
        key <- ~w(state nonce nock tip error tx-ring-ref),
        do: dir <> "/" <> key
      )
  end

  # Another tube of the pair ends at the same time, on either side, and prunes the parents.
  defp siblings(%{budget: %{sibling: 0}}), do: []

  defp siblings(w) do
    for {domid, path, root} <- [
          {@nock, Paths.outbox(@nock, @tip), Paths.nock_root(@nock)},
          {@tip, Paths.inbox(@tip, @nock), Paths.tip_root(@tip)}
        ],
        w.endpoints[:nock] != nil or domid == @tip,
        {_, store, fired} =
          TestStore.request(
            w.store,
            w.flavour,
            domid,
            {:transaction, [{:prune, path}, {:prune, root}]}
          ),
        store != w.store,
        do: {{:sibling, domid}, w |> spend(:sibling) |> changed(store, fired)}
  end

  # The connection to the store is lost: for one endpoint if the store lives, for all if it died.
  defp losses(%{budget: %{store: nil}}), do: []

  defp losses(w) do
    how = w.budget.store
    names = Map.keys(w.endpoints)
    w = put_in(%{w | store_lost: true}.budget.store, nil)

    case how do
      :alive ->
        for(name <- names, do: {{name, :store_lost}, lose(w, name)})

      :restarted ->
        w = %{
          w
          | store: TestStore.new([@nock, @tip, @intruder]),
            woken: false,
            service: if(is_binary(w.service), do: {:lost, w.service}, else: w.service)
        }

        [{:store_restarted, Enum.reduce(names, w, &lose(&2, &1))}]
    end
  end

  defp lose(w, name) do
    w
    |> update(
      name,
      &%{
        &1
        | queue: Enum.filter(&1.queue, fn request -> elem(request, 0) == :native end),
          replies: Enum.reject(&1.replies, fn reply -> elem(reply, 0) == :store end),
          watches: %{},
          fired: [],
          down: true
      }
    )
    |> event(name, :store_lost)
  end

  defp restarts(%{budget: %{again: true}, crashed: [{role, :vm}]} = w) do
    w = %{w | crashed: [], budget: %{w.budget | again: false}}

    case role do
      :nock ->
        [
          {:nock_again,
           start(w, :nock, :nock, %{
             me: @nock,
             peer: @tip,
             tid: @tid,
             nonce: @again,
             service: @service
           })}
        ]

      :tip ->
        [{:tip_again, w |> swept() |> Model.publish("two")}]
    end
  end

  defp restarts(_w), do: []

  # A VM that is the only one of its domain sweeps when it starts.
  defp swept(w) do
    Enum.reduce(Directory.sweep(@tip), w, fn request, w ->
      {_result, store, fired} = TestStore.request(w.store, w.flavour, @tip, request)
      changed(w, store, fired)
    end)
  end
end
