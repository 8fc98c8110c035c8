defmodule Tube.Handshake.Endpoint do
  @moduledoc false
  # One endpoint of the model: a machine, its outstanding requests, its watches, its timers, and its
  # end of the rings. Its steps are what the real interpreter would do next.

  alias Tube.Handshake.{OpenRequest, TestStore}

  @nock 7
  @tip 5
  @tid 0

  @doc "Adds an endpoint to the state."
  def start(w, name, role, params) do
    # Limits do not matter here: timers fire at any moment.
    {m, ops} = w.machines[role].new(params)

    endpoint = %{
      role: role,
      dom: params.me,
      m: m,
      queue: [],
      replies: [],
      watches: %{},
      fired: [],
      timers: [],
      rings: nil,
      gone: false,
      fin: nil,
      drained: false,
      reported: [],
      down: false
    }

    w = put_in(w.endpoints[name], endpoint)
    perform(w, name, ops)
  end

  @doc "The next steps of an endpoint."
  def steps(w, name, p) do
    execute(w, name, p) ++
      deliver(w, name, p) ++
      for(
        token <- p.fired,
        do:
          {{name, :watch, token},
           w |> update(name, &%{&1 | fired: p.fired -- [token]}) |> event(name, {:watch, token})}
      ) ++
      for(timer <- p.timers, timer in w.early, do: fire(w, name, timer)) ++
      notifications(w, name, p)
  end

  @doc "The time-outs of all endpoints, for the timers that `which` selects."
  def timers(w, which),
    do: for({name, p} <- w.endpoints, timer <- p.timers, which.(timer), do: fire(w, name, timer))

  defp fire(w, name, timer) do
    {{name, :timeout, timer},
     w |> update(name, &%{&1 | timers: &1.timers -- [timer]}) |> event(name, {:timeout, timer})}
  end

  # The oldest request of an endpoint is carried out and replied to at once: whatever could happen
  # between the two could also happen before. (`late: true` walks those orders too.)
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

  # Values that the peer wrote for a moment. Some of them are even possible.
  @garbage ["", "3", "4", "6", "99999999999"]

  defp garbage(%{budget: %{garbage: n}} = w, name, p, ref, {:read, path}) when n > 0 do
    if String.starts_with?(path, w.machines[p.role].peer_node(p.m) <> "/"),
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

  defp reply(%{late: false} = w, name, reply), do: event(w, name, reply)

  defp reply(w, name, reply) do
    # A reply that the machine only collects may as well arrive at once.
    if last?(w.endpoints[name].m.pending, reply),
      do: update(w, name, &%{&1 | replies: &1.replies ++ [reply]}),
      else: event(w, name, reply)
  end

  defp last?({:store, tag, results, n}, {:store, {tag, _}, _}), do: map_size(results) == n - 1
  defp last?(_pending, _reply), do: true

  defp deliver(_w, _name, %{replies: []}), do: []

  defp deliver(w, name, %{replies: [event | rest]}) do
    [
      {{name, :reply, elem(event, 0)},
       w |> update(name, &%{&1 | replies: rest}) |> event(name, event)}
    ]
  end

  defp native(w, {:tip, k} = name, :allocate, %{peer: @nock, nonce: nonce}) do
    refs = %{tx_ring_ref: 8 * k, rx_ring_ref: 8 * k + 1, event_channel: 8 * k + 2}
    shown = %{tx_ring_bytes: 65_536, rx_ring_bytes: 65_536, opened: 1_764_000_000}

    w
    |> update(name, &%{&1 | rings: {:shared, nonce, refs}})
    |> reply(name, {:allocated, {:ok, Map.merge(refs, shown)}})
  end

  defp native(w, :nock, :map, %{peer: @tip} = spec) do
    refs = Map.take(spec, [:tx_ring_ref, :rx_ring_ref, :event_channel])

    # Mapping does not check the page's nonce here: the handshake must be right without it.
    case Enum.find(w.endpoints, fn {_name, p} -> match?({:shared, _, ^refs}, p.rings) end) do
      {tip, _party} ->
        w |> update(:nock, &%{&1 | rings: {:mapped, tip}}) |> reply(:nock, {:mapped, :ok})

      nil ->
        reply(w, :nock, {:mapped, {:error, :enoent}})
    end
  end

  defp reply_to(:allocate), do: :allocated
  defp reply_to(:map), do: :mapped

  # The event channel's notifications.
  defp notifications(_w, _name, %{rings: nil}), do: []
  defp notifications(_w, _name, %{m: %{phase: :done}}), do: []

  defp notifications(w, name, p) do
    ended? = p.fin == :seen or p.gone == :seen

    if(p.gone == true,
      do: [{{name, :gone}, w |> update(name, &%{&1 | gone: :seen}) |> event(name, :gone)}],
      else: []
    ) ++
      if(p.fin == :sent,
        do: [{{name, :fin}, w |> update(name, &%{&1 | fin: :seen}) |> event(name, :fin)}],
        else: []
      ) ++
      if(ended? and not p.drained and not w.lazy and :start in p.reported,
        do: [
          {{name, :drained}, w |> update(name, &%{&1 | drained: true}) |> event(name, :drained)}
        ],
        else: []
      )
  end

  @doc "Gives an event to its machine, and performs the operations."
  def event(w, name, event) do
    p = w.endpoints[name]
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

  # A late event after this is covered by the spurious ones.
  defp op(w, name, {:unwatch, token}) do
    update(w, name, &%{&1 | watches: Map.delete(&1.watches, token), fired: &1.fired -- [token]})
  end

  defp op(w, name, {:timer, timer, _ms}),
    do: update(w, name, &%{&1 | timers: Enum.sort(Enum.uniq([timer | &1.timers]))})

  defp op(w, name, {:cancel, timer}), do: update(w, name, &%{&1 | timers: &1.timers -- [timer]})

  defp op(w, name, {what, spec}) when what in [:allocate, :map],
    do: update(w, name, &%{&1 | queue: &1.queue ++ [{:native, what, spec}]})

  defp op(w, name, :free) do
    true = w.endpoints[name].rings != nil
    free(w, name)
  end

  defp op(w, name, op) when op in [:start, :connected], do: report(w, name, op)
  defp op(w, name, {:failed, reason}), do: report(w, name, {:failed, reason})
  defp op(w, name, {:stop, reason}), do: report(w, name, {:stop, reason})
  defp op(w, _name, op) when op == :closing, do: w
  defp op(w, _name, {trace, _state}) when trace in [:state, :peer_state], do: w

  defp report(w, name, what), do: update(w, name, &%{&1 | reported: &1.reported ++ [what]})

  @doc "Clears the live byte, and notifies the other end if there is one."
  def free(w, name) do
    ends = for other <- others(w, name), do: other
    w = update(w, name, &%{&1 | rings: nil, gone: false, fin: nil})

    Enum.reduce(ends, w, fn other, w ->
      update(w, other, &%{&1 | gone: if(&1.gone == :seen, do: :seen, else: true)})
    end)
  end

  @doc "The endpoint at the other end of its rings."
  def others(w, name) do
    case w.endpoints[name].rings do
      {:mapped, tip} -> for %{rings: {:shared, _, _}} <- [w.endpoints[tip]], do: tip
      {:shared, _, _} -> for {:nock, %{rings: {:mapped, ^name}}} <- w.endpoints, do: :nock
      nil -> []
    end
  end

  @doc "The store has changed: watches of the changed paths fire, some time."
  def changed(w, store, fired) do
    w = %{w | store: store}

    Enum.reduce(fired, w, fn {path, _perms} = change, w ->
      endpoints =
        Map.new(w.endpoints, fn {name, p} ->
          more =
            for {token, {watched, interest}} <- p.watches,
                token not in p.fired,
                TestStore.fires?(store, p.dom, change, watched, interest),
                do: token

          {name, %{p | fired: Enum.sort_by(more ++ p.fired, &order/1)}}
        end)

      woken =
        w.woken or
          (is_binary(w.service) and match?({:read, @nock, @tid}, OpenRequest.changed(path, @tip)))

      %{w | endpoints: endpoints, woken: woken}
    end)
  end

  # Any fixed order, so that equal states compare as equal.
  defp order(:services), do: 0
  defp order(:tip_node), do: 1
  defp order(:peer), do: 2

  def spend(w, what), do: update_in(w.budget[what], &(&1 - 1))
  def update(w, name, fun), do: %{w | endpoints: Map.update!(w.endpoints, name, fun)}
end
