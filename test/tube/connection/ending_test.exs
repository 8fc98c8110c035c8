defmodule Tube.Connection.EndingTest do
  # Walks every order in which the events of an end may come: mode of the tube x behaviour of its
  # owner x two causes, against a model of the link and of the handshake's machine that may do
  # whatever their contracts allow.
  use ExUnit.Case, async: true

  alias Tube.Connection.Ending

  @causes [
    :close,
    :owner_down,
    :peer_closes,
    :peer_killed,
    :domain_gone,
    :violation,
    :suspend,
    :no_memory,
    :store_lost
  ]

  ## The model: what the link, the machine, the owner and the peer may do next

  # `queue`: events of the link that are on their way. `machine`: :opening, :open, :closing,
  # :failed, :freed, :stopped. `replies`: by caller. `owner_told`: the link has told the owner.
  @start %{
    mode: :tube,
    owner: :active,
    causes: [],
    happened: [],
    machine: :opening,
    connected: false,
    asked: false,
    reason: :closed,
    link: :none,
    queue: [],
    unread: 0,
    fin: false,
    gone: false,
    violated: false,
    drained: false,
    owner_told: 0,
    unsent: false,
    waiting: [],
    timers: [],
    shared: false,
    replies: %{},
    frees: 0,
    cuts: 0,
    tip_done: 0,
    exits: [],
    done: false
  }

  defp start(options) do
    w = Map.merge(@start, Map.new(Keyword.drop(options, [:role, :ending])))
    module = Keyword.get(options, :ending, Ending)
    {module, module.new(w.mode, Keyword.get(options, :role, :nock)), opener(w, options)}
  end

  defp opener(w, options) do
    if Keyword.get(options, :role, :nock) == :nock,
      do: %{w | waiting: [:opener], timers: [:await]},
      else: w
  end

  # All moves: `{forced?, name, fun}`. A move that is not forced is the owner's to make or not.
  defp moves(%{done: true}), do: []

  defp moves(w) do
    List.flatten([
      machine_moves(w),
      if(w.queue != [], do: {true, {:link, hd(w.queue)}}, else: []),
      for(timer <- Enum.uniq(w.timers), do: {true, {:timer, timer}}),
      for(cause <- Enum.uniq(w.causes), possible?(w, cause), do: {true, {:cause, cause}}),
      if(w.unsent, do: {false, :sent}, else: []),
      read_moves(w)
    ])
  end

  defp machine_moves(w) do
    case w.machine do
      :opening when w.asked -> {true, {:machine, {:fail, w.reason}}}
      :opening when w.link == :none -> [{true, {:machine, :link}}]
      :opening -> [{true, {:machine, :connect}}]
      # It waits for the owner or for its limit, which may be over at any time.
      :closing -> {true, {:machine, :free}}
      :failed -> {true, {:machine, :free}}
      :freed -> {true, {:machine, :stop}}
      _open_or_stopped -> []
    end
  end

  # Memory is refused when a link is made; of the store's loss only a machine that opens hears.
  defp possible?(w, :no_memory), do: w.machine == :opening and w.link == :none
  defp possible?(w, :store_lost), do: w.machine == :opening

  defp possible?(w, :close),
    do: w.machine != :opening and w.owner != :gone and :opener not in w.waiting

  defp possible?(w, :owner_down), do: w.owner != :gone
  defp possible?(_w, :suspend), do: true
  defp possible?(w, _of_the_peer), do: w.link == :flowing and w.shared and not (w.fin or w.gone)

  # A passive owner reads when it likes, and learns of the end when it asks for more.
  defp read_moves(%{owner: :passive, link: :flowing} = w) do
    cond do
      w.unread > 0 and not w.violated -> {false, :read}
      (w.fin or w.gone or w.violated) and w.owner_told == 0 -> {false, :read}
      true -> []
    end
  end

  defp read_moves(_w), do: []

  ## One move

  defp move({module, e, w}, {:machine, :link}),
    do: feed({module, e, %{w | link: :idle, shared: true}}, :link)

  defp move({module, e, w}, {:machine, :connect}) do
    w = %{w | machine: :open, link: :flowing, connected: true}
    state = {module, e, w} |> feed(:start) |> feed({:connected, :the_tube})
    if w.unsent, do: feed(state, {:unsent, true}), else: state
  end

  defp move({module, e, w}, {:machine, {:fail, reason}}),
    do: feed({module, e, %{w | machine: :failed}}, {:failed, reason})

  defp move({module, e, w}, {:machine, :free}),
    do: feed({module, e, %{w | machine: :freed}}, :free)

  defp move({module, e, w}, {:machine, :stop}),
    do: feed({module, e, %{w | machine: :stopped}}, {:stop, w.reason})

  defp move({module, e, w}, {:link, event}) do
    w = %{w | queue: tl(w.queue)}

    case event do
      :fin -> {module, e, closing(w)}
      # The machine takes a peer that goes after its end for a closed one.
      :gone when w.fin -> {module, e, closing(w)}
      :gone -> failed({module, e, w}, :peer_down)
      :protocol -> {module, e, w} |> feed(:protocol) |> failed(:protocol)
      other -> feed({module, e, w}, other)
    end
  end

  defp move({module, e, w}, {:timer, :await}),
    do: feed({module, e, %{w | timers: w.timers -- [:await]}}, {:await, :opener})

  defp move({module, e, w}, {:timer, timer}),
    do: feed({module, e, %{w | timers: w.timers -- [timer]}}, timer)

  defp move({module, e, w}, :sent), do: feed({module, e, %{w | unsent: false}}, {:unsent, false})

  defp move({module, e, w}, :read) do
    w = if w.unread > 0 and not w.violated, do: %{w | unread: 0}, else: tell(w)
    {module, e, note_end(w)}
  end

  defp move({module, e, w}, {:cause, cause}) do
    w = %{w | causes: w.causes -- [cause], happened: Enum.sort([cause | w.happened])}
    cause({module, e, w}, cause)
  end

  defp cause({module, e, w}, :close), do: feed({module, e, wait(w, :closer)}, {:close, :closer})

  defp cause({module, e, w}, :owner_down) do
    w = %{
      w
      | owner: :gone,
        timers: w.timers -- [:await],
        waiting: w.waiting -- [:opener, :closer]
    }

    feed({module, e, w}, :owner_down)
  end

  defp cause({module, e, w}, :suspend) do
    w = wait(%{w | timers: [:suspend_timeout | w.timers]}, :suspender)
    feed({module, e, w}, {:suspend, :suspender})
  end

  defp cause(state, :domain_gone), do: failed(state, :peer_domain_gone, :freed)
  defp cause({module, e, w}, :no_memory), do: {module, e, %{w | asked: true, reason: :enospc}}

  defp cause({module, e, w}, :store_lost),
    do: {module, e, %{w | asked: true, reason: :store_lost}}

  defp cause({module, e, w}, :peer_closes), do: {module, e, link_ends(%{w | fin: true}, [:fin])}
  defp cause({module, e, w}, :peer_killed), do: {module, e, link_ends(%{w | gone: true}, [:gone])}

  defp cause({module, e, w}, :violation),
    do: {module, e, link_ends(%{w | violated: true}, [:protocol])}

  defp wait(w, caller), do: %{w | waiting: [caller | w.waiting]}

  defp closing(%{machine: :open} = w), do: %{w | machine: :closing}
  defp closing(w), do: w

  defp failed(state, reason, machine \\ :failed)

  defp failed({module, e, %{machine: m} = w}, reason, next) when m in [:open, :closing] do
    state = feed({module, e, %{w | machine: next, reason: reason}}, {:failed, reason})
    if next == :freed, do: feed(state, :free), else: state
  end

  defp failed(state, _reason, _next), do: state

  # The link reports the end, and tells an active owner at once.
  defp link_ends(w, events) do
    w = %{w | queue: w.queue ++ events}

    w =
      if w.owner == :active,
        do: tell(%{w | unread: if(w.violated, do: w.unread, else: 0)}),
        else: w

    note_end(w)
  end

  defp note_end(w) do
    if (w.fin or w.gone) and not w.violated and w.unread == 0 and not w.drained,
      do: %{w | drained: true, queue: w.queue ++ [:drained]},
      else: w
  end

  # Drained comes before, whoever asks first.
  defp tell(%{owner_told: 0} = w) do
    w = note_end(w)
    %{w | owner_told: 1, queue: w.queue ++ [:owner_told]}
  end

  defp tell(w), do: w

  ## What the ending says

  defp feed({module, e, w}, event) do
    {e, actions} = module.handle(e, event)
    Enum.reduce(actions, {module, e, w}, &perform/2)
  end

  defp perform(action, {_module, _e, %{done: true} = w}),
    do: flunk("#{inspect(action)} after the end of #{inspect(w)}")

  defp perform({:machine, event}, {module, e, w}) do
    reason = %{close: :closed, owner_down: :owner_down, suspend: :suspended}[event]

    w =
      case w.machine do
        :opening -> %{w | asked: true, reason: reason}
        :open -> %{w | machine: :closing, asked: true}
        _on_its_way_out -> w
      end

    {module, e, w}
  end

  defp perform(:start_linger, {module, e, w}),
    do: {module, e, %{w | timers: [:linger_timeout | w.timers]}}

  defp perform(:finish_sending, {module, e, w}), do: {module, e, %{w | unsent: false}}
  defp perform(step, state) when step in [:suspend_link, :unregister, :shutdown], do: state
  defp perform({:failed, _reason}, state), do: state

  defp perform(:tip_done, {module, e, w}), do: {module, e, %{w | tip_done: w.tip_done + 1}}

  defp perform({:cut, _reason}, {module, e, w}) do
    holds(w, w.shared and w.link == :flowing, "cut, but not shared")
    w = %{w | shared: false, cuts: w.cuts + 1}
    w = if w.fin or w.gone or w.violated, do: w, else: link_ends(%{w | gone: true}, [:gone])
    {module, e, w}
  end

  # Closing a broken link tells an active owner.
  defp perform({:free, _reason}, {module, e, w}) do
    holds(w, w.link != :freed, "freed twice")
    owner_told = if w.owner == :active and (w.violated or w.gone), do: 1, else: w.owner_told

    {module, e,
     %{w | link: :freed, shared: false, frees: w.frees + 1, queue: [], owner_told: owner_told}}
  end

  defp perform({:reply, from, answer}, {module, e, w}) do
    holds(w, not Map.has_key?(w.replies, from), "two replies")
    {module, e, %{w | replies: Map.put(w.replies, from, answer), waiting: w.waiting -- [from]}}
  end

  defp perform({:exit_owner, reason}, {module, e, w}),
    do: {module, e, %{w | exits: [reason | w.exits]}}

  defp perform(:stop, {module, e, w}), do: {module, e, %{w | done: true}}

  ## Invariants

  @reasons %{
    close: :closed,
    owner_down: :owner_down,
    peer_closes: :closed,
    peer_killed: :peer_down,
    domain_gone: :peer_domain_gone,
    violation: :protocol,
    suspend: :suspended,
    no_memory: :enospc,
    store_lost: :store_lost
  }

  # Whatever has still to come is not forced: the tube is over, or its owner keeps it.
  defp check_last(w) do
    over? = w.happened != []

    kept? =
      w.owner == :passive and w.link == :flowing and
        if(w.mode == :port, do: w.unread > 0 and not w.violated, else: w.owner_told == 0)

    holds(w, not (w.connected and :opener in w.waiting), "open/2 waits for ever")
    holds(w, :suspender not in w.waiting, "suspend/1 waits for ever")
    holds(w, w.done or kept? or not over?, "does not end")
    holds(w, not (kept? and :close in w.happened), "closed, and kept")
    if w.done, do: check_done(w)
  end

  defp check_done(w) do
    reasons = [:closed | Enum.map(w.happened, &@reasons[&1])]
    holds(w, w.waiting == [], "waits for ever")
    holds(w, not w.shared, "still shared")
    holds(w, w.frees == if(w.link == :none, do: 0, else: 1), "not freed once")
    holds(w, w.cuts <= 1, "cut twice")
    holds(w, w.tip_done == 1, "the dispatcher does not learn of it once")

    # The owner of a port has one exit signal, if it had the tube; nobody else has one.
    signals = if w.mode == :port and w.connected and w.owner != :gone, do: 1, else: 0
    holds(w, length(w.exits) == signals, "exit signals")
    for reason <- w.exits, do: holds(w, reason in reasons, "wrong reason")

    case w.replies[:opener] do
      {:error, reason} -> holds(w, reason in reasons, "wrong reason for open/2")
      _none_or_tube -> :ok
    end

    # One cause, one reason.
    with [cause] <- w.happened,
         [exit] <- w.exits,
         do: holds(w, exit == @reasons[cause], "wrong reason")

    # By the link, by closing, by an exit signal, by its own end, or by the result of open/2.
    informed? =
      w.owner_told == 1 or w.drained or w.exits != [] or w.owner == :gone or :close in w.happened or
        not w.connected or w.replies[:suspender] == {:ok, :cut_short}

    holds(w, informed?, "its owner was not informed")
  end

  defp holds(_w, true, _what), do: :ok
  defp holds(w, false, what), do: flunk("#{what}: #{inspect(w)}")

  ## The walk

  defp walk(options), do: search([start(options)], MapSet.new())

  defp search([], seen), do: MapSet.size(seen)

  defp search([{_module, _e, w} = state | rest], seen) do
    known = MapSet.put(seen, state)

    if MapSet.size(known) == MapSet.size(seen) do
      search(rest, seen)
    else
      moves = moves(w)
      unless Enum.any?(moves, fn {forced?, _move} -> forced? end), do: check_last(w)
      search(for({_forced?, move} <- moves, do: move(state, move)) ++ rest, known)
    end
  end

  # Each alone, and each two; which comes first is one of the model's choices.
  @pairs for(a <- @causes, do: [a]) ++ for(a <- @causes, b <- @causes, a < b, do: [a, b])

  for mode <- [:tube, :port, :dist], owner <- [:active, :passive] do
    test "#{mode}, #{owner} owner: ends in every order, once, with a reason" do
      walks =
        for causes <- @pairs, unread <- [0, 1], unsent <- [false, true], role <- [:nock, :tip] do
          walk(
            mode: unquote(mode),
            owner: unquote(owner),
            causes: causes,
            unread: unread,
            unsent: unsent,
            role: role
          )
        end

      IO.puts(
        "\n#{inspect(__MODULE__)} #{unquote(mode)}, #{unquote(owner)}: #{Enum.sum(walks)} states"
      )

      assert Enum.sum(walks) > 1_000
    end
  end

  ## The walk finds faults

  for {name, event} <- [
        DeafToViolations: :protocol,
        DeafToTheOwner: :owner_told,
        DeafToTheLinger: :linger_timeout
      ] do
    defmodule Module.concat(__MODULE__, name) do
      defdelegate new(mode, role), to: Ending
      def handle(ending, unquote(event)), do: {ending, []}
      def handle(ending, event), do: Ending.handle(ending, event)
    end
  end

  for {name, pattern} <- [Leaky: :free, Forgetful: :reply, Mute: :exit_owner] do
    defmodule Module.concat(__MODULE__, name) do
      defdelegate new(mode, role), to: Ending

      def handle(ending, event) do
        {ending, actions} = Ending.handle(ending, event)

        {ending,
         Enum.reject(
           actions,
           &(match?({unquote(pattern), _}, &1) or match?({unquote(pattern), _, _}, &1))
         )}
      end
    end
  end

  defmodule Twice do
    defdelegate new(mode, role), to: Ending

    def handle(ending, event) do
      {ending, actions} = Ending.handle(ending, event)
      {ending, Enum.flat_map(actions, &if(match?({:reply, _, _}, &1), do: [&1, &1], else: [&1]))}
    end
  end

  defp found?(module, options) do
    walk([ending: module] ++ options)
    false
  rescue
    ExUnit.AssertionError -> true
  end

  test "the walk finds an ending that is wrong" do
    assert [] ==
             for(
               {module, options} <- [
                 {DeafToViolations,
                  [mode: :port, causes: [:violation], unread: 1, owner: :passive]},
                 {DeafToTheOwner,
                  [mode: :tube, causes: [:peer_killed], owner: :passive, unread: 1]},
                 {:DeafToTheLinger, [causes: [:close], unsent: true]},
                 {:Leaky, [causes: [:close]]},
                 {:Forgetful, [causes: [:close]]},
                 {:Mute, [mode: :port, causes: [:peer_killed]]},
                 {:Twice, [causes: [:close]]}
               ],
               found?(Module.concat(__MODULE__, module), options) == false,
               do: module
             )
  end
end
