defmodule Tube.Handshake.Chances do
  @moduledoc false
  # What may happen in a run of the model and may as well not, as far as the budget goes.

  alias Tube.{Handshake, Paths}
  alias Tube.Handshake.{Model, Party, TestStore, Verdict}
  import Party, only: [changed: 3, event: 3, let_go: 2, others: 2, spend: 2, start: 4, update: 3]

  @nock 7
  @tip 5
  @stranger 9
  @tid 0
  @service "default"
  @again "00000000000000b0"

  @doc "All chances of a state."
  def all(w) do
    doors(w) ++
      closes(w) ++
      crashes(w) ++
      spurious(w) ++ strangers(w) ++ siblings(w) ++ losses(w) ++ restarts(w)
  end

  defp doors(%{door: :closed, crashed: []} = w), do: [{:door_opens, Model.open_door(w, "one")}]
  defp doors(_w), do: []

  defp closes(w) do
    for {name, p} <- w.parties, p.role in w.budget.close, p.m.phase != :done do
      w = put_in(w.budget.close, w.budget.close -- [p.role])
      # FIN stands in the page before the machine hears of it.
      w =
        if :listen in p.told,
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
        Enum.any?(w.parties, fn {_, p} -> p.role == role end) or role == :tip do
      w = put_in(w.budget.crash, [])
      names = for {name, %{role: ^role}} <- w.parties, do: name

      w =
        Enum.reduce(names, w, fn name, w ->
          w |> let_go(name) |> Map.update!(:parties, &Map.delete(&1, name))
        end)

      w = %{w | crashed: [{role, how} | w.crashed]}
      w = if role == :tip, do: %{w | rung: false, door: {:stale, w.door}}, else: w
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
    for {name, p} <- w.parties,
        p.m.phase != :done,
        not p.down,
        token <- [:door, :entry, :peer] -- p.fired do
      {{name, :spurious, token}, w |> spend(:spurious) |> event(name, {:watch, token})}
    end
  end

  defp strangers(%{budget: %{stranger: 0}}), do: []

  defp strangers(w) do
    for {request, store, fired} <- allowed(w.store, w.flavour) do
      {{:stranger, request}, w |> spend(:stranger) |> changed(store, fired)}
    end
  end

  # What the store lets domain 9 do to it, tried at every path. Many states have the same store.
  defp allowed(store, flavour) do
    key = {:allowed, :erlang.phash2({store, flavour}, 4_294_967_296)}
    with nil <- Process.get(key), do: tap(try_all(store, flavour), &Process.put(key, &1))
  end

  defp try_all(store, flavour) do
    for path <- Enum.uniq(Map.keys(store) ++ universe()),
        not Verdict.own?(path),
        request <- [
          {:write, path, "3"},
          {:rm, path},
          {:mkdir, path},
          {:set_perms, path, [b: @stranger]}
        ],
        {result, changed, fired} = TestStore.request(store, flavour, @stranger, request),
        result == :ok and changed != store,
        do: {request, changed, fired}
  end

  defp universe do
    knock = Paths.nock_node(@nock, @tip, @tid)
    entry = Paths.tip_node(@tip, @nock, @tid)

    [
      Paths.service_directory(@tip),
      Paths.service(@tip, @service),
      Paths.inbox(@tip, @nock),
      Paths.inbox(@tip, @stranger),
      Paths.outbox(@nock, @tip),
      knock,
      entry
    ] ++
      for(
        dir <- [knock, entry],
        key <- ~w(state nonce nock tip error tx-ring-ref),
        do: dir <> "/" <> key
      )
  end

  # The last but one tube of a pair ends at the same time: on either side.
  defp siblings(%{budget: %{sibling: 0}}), do: []

  defp siblings(w) do
    for {domid, path, root} <- [
          {@nock, Paths.outbox(@nock, @tip), Paths.nock_root(@nock)},
          {@tip, Paths.inbox(@tip, @nock), Paths.tip_root(@tip)}
        ],
        w.parties[:nock] != nil or domid == @tip,
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

  # The connection to the store is lost: for one party if the store lives, for all if it died.
  defp losses(%{budget: %{store: nil}}), do: []

  defp losses(w) do
    how = w.budget.store
    names = Map.keys(w.parties)
    w = put_in(%{w | store_lost: true}.budget.store, nil)

    case how do
      :alive ->
        for(name <- names, do: {{name, :store_lost}, lose(w, name)})

      :restarted ->
        w = %{
          w
          | store: TestStore.new([@nock, @tip, @stranger]),
            rung: false,
            door: if(is_binary(w.door), do: {:lost, w.door}, else: w.door)
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
        | queue: Enum.filter(&1.queue, fn asked -> elem(asked, 0) == :native end),
          answers: Enum.reject(&1.answers, fn a -> elem(a, 0) == :store end),
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
        [{:tip_again, w |> swept() |> Model.open_door("two")}]
    end
  end

  defp restarts(_w), do: []

  # What a VM does at its start if it is the only one of its domain.
  defp swept(w) do
    Enum.reduce(Handshake.sweep(@tip), w, fn request, w ->
      {_result, store, fired} = TestStore.request(w.store, w.flavour, @tip, request)
      changed(w, store, fired)
    end)
  end
end
