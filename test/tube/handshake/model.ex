defmodule Tube.Handshake.Model do
  @moduledoc false
  # A nock's domain (7), a tip's domain (5) and a stranger's (9) around one xenstore, as a state
  # and the steps that can be taken from it.
  #
  # Every request of a party is carried out by the store in a step of its own, its answer arrives
  # in another, each watch event in another, each timer fires in another: so all orders are
  # among the runs. Watch events carry no more than "something changed here", so several of them
  # may arrive as one, as late as can be. What a run may contain besides is bounded by `budget`:
  #
  #     close: [:nock, :tip]      the owner closes, at any moment
  #     crash: [{:nock, :vm}, {:tip, :domain}]   one of these, at any moment
  #     spurious: n               watch events without a cause
  #     stranger: n               what domain 9 does to any node, if the store lets it
  #     sibling: n                another tube's end prunes the parents
  #     fault: n                  a transaction fails for good
  #     garbage: n                the peer's half shows another value when it is read
  #     native: n                 allocating or mapping fails
  #     store: :alive | :restarted   the store's connection is lost and comes back
  #     again: true               after a crash of its VM, a party starts anew with the same tube number

  alias Tube.{Handshake, Paths}
  alias Tube.Handshake.{Knock, TestStore}

  @nock 7
  @tip 5
  @stranger 9
  @tid 0
  @service "default"
  @nonces ~w(00000000000000a0 00000000000000b0 00000000000000c0)

  defstruct [
    :store,
    :flavour,
    :machines,
    :budget,
    # Parties by name: :nock, and one tip for each knock that was let in: {:tip, 1}, {:tip, 2}.
    parties: %{},
    # :closed, the instance that stands there, or {:stale, instance}
    door: :closed,
    # The door's watch has fired; nonces that it has let in.
    rung: false,
    let_in: [],
    crashed: [],
    store_lost: false,
    late: false,
    verdict: :accept,
    # Owners never take what is left in a ring.
    lazy: false,
    # Nothing here hinders the two: they must be connected in the end.
    connects: false,
    # Timers that may fire before their time; the others fire when nothing else is under way.
    early: [:limit, :close, :drain, :grace, :vanished]
  ]

  @doc "The state before the first step; with `from: :open` one in which both are connected."
  def new(options) do
    %__MODULE__{
      flavour: Keyword.get(options, :flavour, :c),
      late: Keyword.get(options, :late, false),
      verdict: Keyword.get(options, :verdict, :accept),
      lazy: Keyword.get(options, :lazy, false),
      connects: Keyword.get(options, :connects, false),
      early: Keyword.get(options, :early, [:limit, :close, :drain, :grace, :vanished]),
      machines: Keyword.get(options, :machines, %{nock: Handshake.Nock, tip: Handshake.Tip}),
      budget:
        Map.merge(
          %{
            close: [],
            crash: [],
            spurious: 0,
            stranger: 0,
            sibling: 0,
            fault: 0,
            garbage: 0,
            native: 0,
            store: nil,
            again: false
          },
          Map.new(Keyword.get(options, :budget, []))
        ),
      store:
        Enum.reduce(
          Keyword.get(options, :left, []),
          TestStore.new([@nock, @tip, @stranger]),
          &left/2
        )
    }
    |> start(:nock, :nock, %{
      me: @nock,
      peer: @tip,
      tid: @tid,
      nonce: hd(@nonces),
      service: @service
    })
    |> then(&if(Keyword.get(options, :door, :open) == :open, do: open_door(&1, "one"), else: &1))
    |> then(&if(Keyword.get(options, :from) == :open, do: run(&1), else: &1))
  end

  # Until nothing is under way, without any time-out.
  defp run(w) do
    case %{w | early: []} |> steps() |> elem(0) do
      [{_label, next} | _] -> run(%{next | early: w.early})
      [] -> w
    end
  end

  # What a dead predecessor of the nock, or of both, has left behind.
  defp left({domid, request}, store) do
    {result, store, _fired} = TestStore.request(store, :c, domid, request)
    true = result == :ok or match?({:ok, _}, result)
    store
  end

  @doc """
  All steps from here: `{progress, chances}`, each a list of `{label, state}`. Chances may happen, and
  may as well not.
  """
  def steps(w) do
    progress =
      Enum.flat_map(w.parties, fn {name, party} -> party_steps(w, name, party) end) ++
        door_steps(w) ++ back_steps(w)

    progress = if progress == [], do: timers(w, &(&1 != :clean)), else: progress
    progress = if progress == [], do: timers(w, &(&1 == :clean)), else: progress
    {progress, chances(w)}
  end

  ## Parties

  defp start(w, name, role, params) do
    # The limits are of no interest here: timers fire when they like.
    {m, ops} = w.machines[role].new(params)

    party = %{
      role: role,
      dom: params.me,
      m: m,
      queue: [],
      answers: [],
      watches: %{},
      fired: [],
      timers: [],
      rings: nil,
      gone: false,
      fin: nil,
      drained: false,
      told: [],
      down: false
    }

    w = put_in(w.parties[name], party)
    perform(w, name, ops)
  end

  defp party_steps(w, name, p) do
    execute(w, name, p) ++
      answer(w, name, p) ++
      for(
        token <- p.fired,
        do:
          {{name, :watch, token},
           w |> update(name, &%{&1 | fired: p.fired -- [token]}) |> event(name, {:watch, token})}
      ) ++
      for(timer <- p.timers, timer in w.early, do: fire(w, name, timer)) ++ bell(w, name, p)
  end

  defp timers(w, which),
    do: for({name, p} <- w.parties, timer <- p.timers, which.(timer), do: fire(w, name, timer))

  defp fire(w, name, timer) do
    {{name, :timeout, timer},
     w |> update(name, &%{&1 | timers: &1.timers -- [timer]}) |> event(name, {:timeout, timer})}
  end

  # The oldest thing that a party has asked for is carried out, and answered at once: what could
  # happen between the two could as well happen before. (`late: true` walks those orders too.)
  defp execute(_w, _name, %{queue: []}), do: []

  defp execute(w, name, %{queue: [{:native, what, spec} | queue]}) do
    w = update(w, name, &%{&1 | queue: queue})
    done = native(w, name, what, spec)
    failed = fn -> w |> spend(:native) |> reply(name, {reply_to(what), {:error, :enospc}}) end

    [{{name, what}, done}] ++
      if(w.budget.native > 0, do: [{{name, what, :fails}, failed.()}], else: [])
  end

  defp execute(_w, _name, %{down: true}), do: []

  defp execute(w, name, %{queue: [{ref, request} | queue]} = p) do
    {result, store, fired} = TestStore.request(w.store, w.flavour, p.dom, request)
    w = update(w, name, &%{&1 | queue: queue})
    done = {{name, request}, w |> changed(store, fired) |> reply(name, {:store, ref, result})}

    [done] ++ fault(w, name, ref, request) ++ garbage(w, name, p, ref, request)
  end

  defp fault(%{budget: %{fault: n}} = w, name, ref, {:transaction, _}) when n > 0,
    do: [{{name, :fault}, w |> spend(:fault) |> reply(name, {:store, ref, {:error, :eagain}})}]

  defp fault(_w, _name, _ref, _request), do: []

  # What the peer wrote for a moment instead of the truth. Some of it is even possible.
  @garbage ["", "3", "4", "6", "99999999999"]

  defp garbage(%{budget: %{garbage: n}} = w, name, p, ref, {:read, path}) when n > 0 do
    if String.starts_with?(path, w.machines[p.role].theirs(p.m) <> "/"),
      do:
        for(
          value <- @garbage,
          do:
            {{name, :garbage, path, value},
             w |> spend(:garbage) |> reply(name, {:store, ref, {:ok, value}})}
        ),
      else: []
  end

  defp garbage(_w, _name, _p, _ref, _request), do: []

  defp reply(%{late: false} = w, name, answer), do: event(w, name, answer)

  defp reply(w, name, answer) do
    # One that the machine only puts with the others may as well arrive at once.
    if last?(w.parties[name].m.pending, answer),
      do: update(w, name, &%{&1 | answers: &1.answers ++ [answer]}),
      else: event(w, name, answer)
  end

  defp last?({:ask, tag, results, n}, {:store, {tag, _}, _}), do: map_size(results) == n - 1
  defp last?(_pending, _answer), do: true

  defp answer(_w, _name, %{answers: []}), do: []

  defp answer(w, name, %{answers: [event | rest]}) do
    [
      {{name, :answer, elem(event, 0)},
       w |> update(name, &%{&1 | answers: rest}) |> event(name, event)}
    ]
  end

  defp native(w, {:tip, k} = name, :allocate, %{peer: @nock, nonce: nonce}) do
    refs = %{tx_ring_ref: 8 * k, rx_ring_ref: 8 * k + 1, event_channel: 8 * k + 2}

    w
    |> update(name, &%{&1 | rings: {:shared, nonce, refs}})
    |> reply(name, {:allocated, {:ok, refs}})
  end

  defp native(w, :nock, :map, %{peer: @tip} = spec) do
    refs = Map.take(spec, [:tx_ring_ref, :rx_ring_ref, :event_channel])

    # The page's nonce is not looked at here: the handshake must do without.
    case Enum.find(w.parties, fn {_name, p} -> match?({:shared, _, ^refs}, p.rings) end) do
      {tip, _party} ->
        w |> update(:nock, &%{&1 | rings: {:mapped, tip}}) |> reply(:nock, {:mapped, :ok})

      nil ->
        reply(w, :nock, {:mapped, {:error, :enoent}})
    end
  end

  defp reply_to(:allocate), do: :allocated
  defp reply_to(:map), do: :mapped

  # What the doorbell tells.
  defp bell(_w, _name, %{rings: nil}), do: []
  defp bell(_w, _name, %{m: %{phase: :done}}), do: []

  defp bell(w, name, p) do
    ended? = p.fin == :seen or p.gone == :seen

    if(p.gone == true,
      do: [{{name, :gone}, w |> update(name, &%{&1 | gone: :seen}) |> event(name, :gone)}],
      else: []
    ) ++
      if(p.fin == :sent,
        do: [{{name, :fin}, w |> update(name, &%{&1 | fin: :seen}) |> event(name, :fin)}],
        else: []
      ) ++
      if(ended? and not p.drained and not w.lazy and :listen in p.told,
        do: [
          {{name, :drained}, w |> update(name, &%{&1 | drained: true}) |> event(name, :drained)}
        ],
        else: []
      )
  end

  defp event(w, name, event) do
    p = w.parties[name]
    {m, ops} = w.machines[p.role].handle(p.m, event)
    w |> update(name, &%{&1 | m: m}) |> perform(name, ops)
  end

  defp perform(w, name, ops), do: Enum.reduce(ops, w, &op(&2, name, &1))

  defp op(w, name, {:store, ref, request}),
    do: update(w, name, &%{&1 | queue: &1.queue ++ [{ref, request}]})

  defp op(w, name, {:watch, token, path, interest}) do
    update(
      w,
      name,
      &%{
        &1
        | watches: Map.put(&1.watches, token, {path, interest}),
          fired: Enum.uniq([token | &1.fired])
      }
    )
  end

  # A late event after this one is among the spurious ones.
  defp op(w, name, {:unwatch, token}) do
    update(w, name, &%{&1 | watches: Map.delete(&1.watches, token), fired: &1.fired -- [token]})
  end

  defp op(w, name, {:timer, timer, _ms}),
    do: update(w, name, &%{&1 | timers: Enum.sort(Enum.uniq([timer | &1.timers]))})

  defp op(w, name, {:cancel, timer}), do: update(w, name, &%{&1 | timers: &1.timers -- [timer]})

  defp op(w, name, {what, spec}) when what in [:allocate, :map],
    do: update(w, name, &%{&1 | queue: &1.queue ++ [{:native, what, spec}]})

  defp op(w, name, :free) do
    true = w.parties[name].rings != nil
    let_go(w, name)
  end

  defp op(w, name, op) when op in [:listen, :connected], do: tell(w, name, op)
  defp op(w, name, {:failed, reason}), do: tell(w, name, {:failed, reason})
  defp op(w, name, {:stop, reason}), do: tell(w, name, {:stop, reason})
  defp op(w, _name, op) when op == :closing, do: w
  defp op(w, _name, {trace, _state}) when trace in [:state, :peer_state], do: w

  defp tell(w, name, what), do: update(w, name, &%{&1 | told: &1.told ++ [what]})

  # The live byte falls, and the bell rings at the other end if there is one.
  defp let_go(w, name) do
    ends = for other <- others(w, name), do: other
    w = update(w, name, &%{&1 | rings: nil, gone: false, fin: nil})

    Enum.reduce(ends, w, fn other, w ->
      update(w, other, &%{&1 | gone: if(&1.gone == :seen, do: :seen, else: true)})
    end)
  end

  # Who holds the other end of a party's rings.
  defp others(w, name) do
    case w.parties[name].rings do
      {:mapped, tip} -> for %{rings: {:shared, _, _}} <- [w.parties[tip]], do: tip
      {:shared, _, _} -> for {:nock, %{rings: {:mapped, ^name}}} <- w.parties, do: :nock
      nil -> []
    end
  end

  ## The tip's door

  defp open_door(w, instance) do
    dead = for {:stale, dead} <- [w.door], do: dead

    {{:ok, _}, store, fired} =
      TestStore.request(
        w.store,
        w.flavour,
        @tip,
        Handshake.open_door(@tip, @service, instance, dead)
      )

    changed(%{w | door: instance, rung: true}, store, fired)
  end

  defp door_steps(%{door: door, rung: true} = w) when is_binary(door) do
    w = %{w | rung: false}
    requests = Knock.requests(@nock, @tip, @tid)

    results =
      for request <- requests,
          do: w.store |> TestStore.request(w.flavour, @tip, request) |> elem(0)

    case Knock.judge(results, @nock, @tip, @tid) do
      {:knock, %{nonce: nonce, service: @service}} -> [{:knock, let_in(w, nonce, w.verdict)}]
      {:refuse, %{nonce: nonce}, word} -> [{:knock, let_in(w, nonce, {:refuse, word})}]
      :ignore -> [{:no_knock, w}]
    end
  end

  defp door_steps(_w), do: []

  defp let_in(w, nonce, verdict) do
    if nonce in w.let_in do
      w
    else
      n = length(w.let_in) + 1

      start(%{w | let_in: [nonce | w.let_in]}, {:tip, n}, :tip, %{
        me: @tip,
        peer: @nock,
        tid: @tid,
        nonce: nonce,
        verdict: verdict
      })
    end
  end

  ## Changes of the store

  defp changed(w, store, fired) do
    w = %{w | store: store}

    Enum.reduce(fired, w, fn {path, _perms} = change, w ->
      parties =
        Map.new(w.parties, fn {name, p} ->
          more =
            for {token, {watched, interest}} <- p.watches,
                token not in p.fired,
                TestStore.fires?(store, p.dom, change, watched, interest),
                do: token

          {name, %{p | fired: Enum.sort(more ++ p.fired)}}
        end)

      rung =
        w.rung or (is_binary(w.door) and match?({:look, @nock, @tid}, Knock.changed(path, @tip)))

      %{w | parties: parties, rung: rung}
    end)
  end

  ## Chances

  defp chances(w) do
    doors(w) ++
      closes(w) ++
      crashes(w) ++
      spurious(w) ++ strangers(w) ++ siblings(w) ++ losses(w) ++ restarts(w)
  end

  defp doors(%{door: :closed, crashed: []} = w), do: [{:door_opens, open_door(w, "one")}]
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
        not own?(path),
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

  defp own?(path), do: String.starts_with?(path, "/local/domain/#{@stranger}")

  defp universe do
    knock = Paths.knock(@nock, @tip, @tid)
    entry = Paths.entry(@tip, @nock, @tid)

    [
      Paths.door(@tip),
      Paths.service(@tip, @service),
      Paths.inbox(@tip, @nock),
      Paths.inbox(@tip, @stranger),
      Paths.knocks(@nock, @tip),
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
          {@nock, Paths.knocks(@nock, @tip), Paths.nock_root(@nock)},
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

  defp back_steps(w) do
    for(
      {name, %{down: true}} <- w.parties,
      do:
        {{name, :store_back},
         w
         |> update(name, &%{&1 | down: false})
         |> event(name, {:store_back, Enum.at(@nonces, 1)})}
    ) ++
      for(
        {:lost, instance} <- [w.door],
        do: {:door_back, open_door(%{w | door: :closed}, instance)}
      )
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
             nonce: Enum.at(@nonces, 1),
             service: @service
           })}
        ]

      :tip ->
        [{:tip_again, w |> swept() |> open_door("two")}]
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

  defp spend(w, what), do: update_in(w.budget[what], &(&1 - 1))
  defp update(w, name, fun), do: %{w | parties: Map.update!(w.parties, name, fun)}

  ## What must hold

  @doc "What is wrong with a state that may last: nil, or a text."
  def wrong(w) do
    live = for {name, p} <- w.parties, do: {name, p}
    open = for {name, p} <- live, p.m.phase == :open, do: name
    nock = w.parties[:nock]

    cond do
      waiting = Enum.find(live, fn {_, p} -> p.m.phase not in [:open, :done] end) ->
        "waits for ever: #{inspect(elem(waiting, 0))}"

      busy = Enum.find(live, fn {_, p} -> p.timers != [] end) ->
        "a timer runs: #{inspect(elem(busy, 0))}"

      open != [] ->
        wrong_open(w, open)

      w.connects and is_binary(w.door) and w.crashed == [] ->
        "nobody is connected"

      left = Enum.find(live, fn {_, p} -> p.rings != nil end) ->
        "rings are left: #{inspect(elem(left, 0))}"

      left = Enum.find(live, fn {_, p} -> p.watches != %{} end) ->
        "watches are left: #{inspect(elem(left, 0))}"

      mute = Enum.find(live, fn {_, p} -> not reason?(p.told) end) ->
        "no reason was given: #{inspect(mute)}"

      nock && not told?(nock.told) ->
        "the asker was not told"

      true ->
        wrong_left(w)
    end
  end

  defp reason?(told),
    do: Enum.any?(told, &match?({:stop, reason} when is_atom(reason) and reason != nil, &1))

  defp told?(told), do: :connected in told or match?([{:failed, _} | _], told)

  # Both are connected, to each other, and the store shows them and nothing else.
  defp wrong_open(w, open) do
    nock = w.parties[:nock]

    with [:nock, {:tip, _} = tip] <- Enum.sort(open),
         {:mapped, ^tip} <- nock.rings,
         {:shared, nonce, _} <- w.parties[tip].rings,
         true <- nock.m.nonce == nonce and w.parties[tip].m.nonce == nonce do
      expected = Enum.sort(shown(nonce, w.parties[tip].m.refs))
      actual = for {path, {value, _perms}} <- w.store, tube?(path), value != "", do: {path, value}

      if actual == expected,
        do: nil,
        else: "the store shows #{inspect(actual -- expected)}, not #{inspect(expected -- actual)}"
    else
      _other -> "connected, but not to each other: #{inspect(open)}"
    end
  end

  defp shown(nonce, refs) do
    knock = Paths.knock(@nock, @tip, @tid)
    entry = Paths.entry(@tip, @nock, @tid)

    for(
      {key, value} <- [tip: entry, service: @service, version: "1", nonce: nonce, state: "4"],
      do: {"#{knock}/#{key}", value}
    ) ++
      for {key, value} <- [
            nock: knock,
            nonce: nonce,
            version: "1",
            state: "4",
            "tx-ring-ref": refs.tx_ring_ref,
            "rx-ring-ref": refs.rx_ring_ref,
            "event-channel": refs.event_channel
          ],
          do: {"#{entry}/#{key}", to_string(value)}
  end

  # A VM that died while its domain lives may leave its own half, for its next start to replace.
  # The nock takes the tip's half with it, if that was there before the nock went.
  defp wrong_left(w) do
    mine =
      for {role, :vm} <- w.crashed do
        if role == :nock,
          do: &String.starts_with?(&1, Paths.nock_root(@nock)),
          else: &(&1 in [Paths.tip_root(@tip), Paths.inbox(@tip, @nock)] or w.store_lost)
      end

    # The empty parent is the door's as much as the tubes': it goes with the last of them.
    mine = [(&(&1 == Paths.tip_root(@tip))) | mine]

    case for({path, _} <- w.store, tube?(path), not Enum.any?(mine, & &1.(path)), do: path) do
      [] -> nil
      left -> "nodes are left: #{inspect(left)}"
    end
  end

  defp tube?(path), do: path =~ ~r"/data/(nock|tip)(/|$)"

  @doc "What is wrong with a store at any time: nobody but the two may write or read their nodes."
  def exposed(store) do
    Enum.find_value(store, fn {path, {_value, perms}} ->
      cond do
        TestStore.may?(perms, @stranger, :w) and not own?(path) ->
          "domain #{@stranger} may write #{path}"

        TestStore.may?(perms, @stranger, :r) and tube?(path) ->
          "domain #{@stranger} may read #{path}"

        true ->
          nil
      end
    end)
  end

  @doc "What identifies a state: what can make no difference any more is left out."
  def key(w) do
    parties = for {name, p} <- w.parties, do: {name, summary(p)}

    :erlang.md5(
      :erlang.term_to_binary(
        {number(w.store), parties, w.budget, w.door, w.rung, w.let_in, w.crashed}
      )
    )
  end

  # Stores are large, and few beside the states: each gets a number.
  defp number(store) do
    with nil <- Process.get({:number, store}) do
      number = Process.get(:numbers, 0)
      Process.put(:numbers, number + 1)
      Process.put({:number, store}, number)
      number
    end
  end

  defp summary(%{m: %{phase: :done}} = p),
    do: {:done, p.rings, p.timers, p.watches, p.queue, p.down, reason?(p.told), told?(p.told)}

  defp summary(%{m: %{phase: :cleaning} = m} = p) do
    {:cleaning, m.pending, m.store, m.tries, m.nonce, m.instance, p.rings, p.timers, p.watches,
     p.queue, p.answers, p.down, told?(p.told)}
  end

  defp summary(p) do
    m = %{p.m | limits: nil, role: nil, service: nil}
    {Map.values(%{p | m: nil, watches: Map.keys(p.watches)}), Map.values(m)}
  end
end
