defmodule Tube.Handshake.RobustTest do
  # A machine gets any event at any time: it never raises, it keeps to the contract of
  # `Tube.Handshake`, and its timers end it whatever else happens.
  use ExUnit.Case, async: true

  alias Tube.Handshake.{Nock, Tip}

  @runs 3_000
  @nonce "00000000000000a0"
  @values [
            "",
            "0",
            "1",
            "2",
            "3",
            "4",
            "5",
            "6",
            "7",
            "9",
            "x",
            @nonce,
            "99999999999",
            <<0, 255>>
          ] ++
            ["/local/domain/7/data/nock/5/0", "one", "version", "refused"]
  @errors [:enoent, :eacces, :eagain, :timeout, {:xenstore, "EODD"}]
  @refs %{
    tx_ring_ref: 1,
    rx_ring_ref: 2,
    event_channel: 3,
    tx_ring_bytes: 4096,
    rx_ring_bytes: 4096,
    opened: 0
  }
  @events [:close, :owner_down, :fin, :drained, :gone, :domain_gone, :protocol, :store_lost] ++
            [{:store_back, "00000000000000b0"}, {:refuse, :busy}, {:watch_failed, :peer, :enospc}] ++
            for(token <- [:services, :tip_node, :peer], do: {:watch, token}) ++
            for(
              timer <- [:limit, :close, :drain, :grace, :vanished, :clean],
              do: {:timeout, timer}
            ) ++
            [
              {:mapped, :ok},
              {:allocated, {:ok, @refs}},
              {:store, {:peer, 0}, :ok},
              :no_such_event
            ]

  @world %{refs: [], timers: [], rings: false, native: nil, open: false, over: nil}

  for {role, params} <- [
        {Nock, %{me: 7, peer: 5, tid: 0, nonce: @nonce, service: "default"}},
        {Tip, %{me: 5, peer: 7, tid: 0, nonce: @nonce}}
      ] do
    test "#{inspect(role)} ends, whatever events it gets" do
      seed = ExUnit.configuration()[:seed]

      runs =
        for n <- 1..@runs do
          :rand.seed(:exsss, {seed, n, 0})
          {m, ops} = unquote(role).new(unquote(Macro.escape(params)))
          {m, world} = babble(unquote(role), m, perform(@world, ops), :rand.uniform(60))
          # An open tube may stay open for ever, until its owner closes it.
          {m, world} = feed(unquote(role), m, world, :close)
          world = let_time_pass(unquote(role), m, world, 40)
          assert %{timers: [], rings: false} = world
          world.open
        end

      # Otherwise few of the runs would have had an open tube.
      assert Enum.count(runs, & &1) > div(@runs, 20)
    end
  end

  defp babble(_role, m, world, 0), do: {m, world}

  defp babble(role, m, world, n) do
    {m, world} = feed(role, m, world, event(world))
    babble(role, m, world, n - 1)
  end

  # Most events are replies, and many of them good ones.
  defp event(%{refs: [{ref, request} | _]} = world) do
    if :rand.uniform(30) == 1,
      do: Enum.random(@events),
      else:
        {:store, ref,
         if(:rand.uniform(30) == 1, do: failure(request), else: success(request, world.rings))}
  end

  # Rather let it go on than end it.
  defp event(%{native: nil}),
    do:
      if(:rand.uniform(10) == 1,
        do: Enum.random(@events),
        else: {:watch, Enum.random([:services, :tip_node, :peer])}
      )

  defp event(%{native: :map}), do: {:mapped, Enum.random([:ok, :ok, :ok, {:error, :enoent}])}

  defp event(%{native: :allocate}),
    do: {:allocated, Enum.random([{:ok, @refs}, {:ok, @refs}, {:error, :enospc}])}

  defp success({:read, path}, rings?) do
    good =
      case Path.basename(path) do
        "state" -> if rings?, do: Enum.random(~w(4 4 4 4 5 6)), else: "3"
        "nonce" -> @nonce
        "version" -> "1"
        "nock" -> "/local/domain/7/data/nock/5/0"
        _other -> "8"
      end

    {:ok, if(:rand.uniform(30) == 1, do: Enum.random(@values), else: good)}
  end

  defp success({:transaction, _list}, _rings?), do: {:ok, []}
  defp success(_other, _rings?), do: :ok

  defp failure({:transaction, _list}), do: {:error, Enum.random([:guard | @errors])}
  defp failure(_other), do: {:error, Enum.random(@errors)}

  # Every request gets a reply in the end, and every timer fires.
  defp let_time_pass(_role, _m, %{over: reason} = world, _n) when reason != nil, do: world
  defp let_time_pass(_role, _m, world, 0), do: flunk("does not end: #{inspect(world)}")

  defp let_time_pass(role, m, world, n) do
    event =
      case world do
        %{refs: [{ref, _request} | _]} -> {:store, ref, {:error, :timeout}}
        %{native: :map} -> {:mapped, {:error, :enoent}}
        %{native: :allocate} -> {:allocated, {:error, :enospc}}
        %{timers: [timer | _]} -> {:timeout, timer}
      end

    {m, world} = feed(role, m, world, event)
    let_time_pass(role, m, world, n - 1)
  end

  defp feed(role, m, world, event) do
    world =
      case event do
        {:store, ref, _result} ->
          %{world | refs: List.keydelete(world.refs, ref, 0)}

        {:mapped, result} when world.native == :map ->
          %{world | native: nil, rings: result == :ok}

        {:allocated, result} when world.native == :allocate ->
          %{world | native: nil, rings: match?({:ok, _}, result)}

        {:timeout, timer} ->
          %{world | timers: world.timers -- [timer]}

        :store_lost ->
          %{world | refs: []}

        _ ->
          world
      end

    {m, ops} = role.handle(m, event)
    {m, perform(world, ops)}
  end

  defp perform(world, ops), do: Enum.reduce(ops, world, &perform_one/2)

  defp perform_one(op, %{over: nil} = world) do
    case op do
      {:store, ref, request} ->
        refute List.keymember?(world.refs, ref, 0)
        %{world | refs: world.refs ++ [{ref, request}]}

      {what, _spec} when what in [:map, :allocate] ->
        assert world.native == nil and not world.rings
        %{world | native: what}

      :free ->
        assert world.rings and world.native == nil
        %{world | rings: false}

      {:timer, timer, ms} when ms > 0 ->
        %{world | timers: Enum.uniq([timer | world.timers])}

      {:cancel, timer} ->
        %{world | timers: world.timers -- [timer]}

      {:stop, reason} when is_atom(reason) or is_tuple(reason) ->
        assert world.native == nil
        %{world | over: reason}

      :connected ->
        %{world | open: true}

      _trace_or_notice ->
        world
    end
  end

  # Nothing follows the last operation.
  defp perform_one(op, world), do: flunk("#{inspect(op)} after #{inspect(world.over)}")
end
