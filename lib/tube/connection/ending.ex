defmodule Tube.Connection.Ending do
  @moduledoc false
  # How a tube ends, as data: events in, actions out. It knows no process, link or clock.
  #
  # Several parties take part in an end, in any order: the handshake's machine (which gives back what is
  # shared and cleans up the store), the link (which reports what the peer did and what the owner has
  # taken), the owner, whoever closes, and whoever suspends the machine. `Tube.Connection.Server` feeds
  # their events in, and `Tube.Connection.Effects` performs the actions.
  #
  #     {ending, actions} = Ending.handle(ending, event)
  #
  # ## What holds for every order of events
  #
  # - The machine hears of the end from our side once, when everything accepted has been sent, or when
  #   the `linger` limit is over.
  # - When the machine releases the link, an owner that has still to learn something keeps it as a
  #   private copy: the messages that had arrived, and then the reason. Nothing shared outlives the release.
  # - The process stops once the machine has stopped, whoever opened has the result, and the owner has been
  #   informed: by the link, by closing, by its own end, or, as the owner of a port, by an exit signal.
  # - Each caller is answered once. Each link that was made is freed once.

  @enforce_keys [:mode]
  defstruct [
    :mode,
    owner: :alive,
    # who gets the result of open/2: nil at the tip, :unclaimed until somebody asks
    opener: nil,
    # :none, :idle (made, no data yet), :flowing, :copied, :freed, or :closed (its port, by somebody else)
    link: :none,
    # %Tube{} once it is open; opaque here
    tube: nil,
    # the end that our side has asked for: nil, :suspend, :close or :owner_down
    request: nil,
    # the machine has heard of it
    finished: false,
    # commands wait for room in the ring
    unsent: false,
    # the owner sends no more than these
    shutdown: false,
    # why there is no tube, or none any more
    failed: nil,
    # what the machine stopped with
    stopped: nil,
    # the owner has taken everything that the peer sent; it knows that there is no more
    drained: false,
    owner_told: false,
    # the peer broke the protocol of the rings: nothing more can be taken
    violated: false,
    closers: [],
    suspenders: [],
    done: false,
    actions: []
  ]

  @type t :: %__MODULE__{}

  @typedoc "Who waits for an answer: a caller, or a process that closed as one closes a port."
  @type closer :: GenServer.from() | {:port, pid}

  @typedoc """
  What happened:

  - `{:await, from}`: the process that opens asks for the result.
  - `:link`: the link was made. `:start`: data flows. `{:connected, tube}`: the tube is open.
  - `{:failed, reason}`, `:free`, `{:stop, reason}`: as the handshake's machine says
    (`t:Tube.Handshake.op/0`).
  - `:drained`, `:owner_told`, `:protocol`: as the link reports. `:link_closed`: somebody closed its port.
  - `{:close, closer}`, `:owner_down`, `:shutdown`: of the owner. `{:suspend, from}`: of `Tube.suspend/1`.
  - `{:unsent, boolean}`: whether commands wait to be sent.
  - `:linger_timeout`, `:suspend_timeout`.
  """
  @type event ::
          {:await, GenServer.from()}
          | :link
          | :start
          | {:connected, tube :: term}
          | {:failed, term}
          | :free
          | {:stop, term}
          | :drained
          | :owner_told
          | :protocol
          | :link_closed
          | {:close, closer}
          | :owner_down
          | :shutdown
          | {:suspend, GenServer.from()}
          | {:unsent, boolean}
          | :linger_timeout
          | :suspend_timeout

  @typedoc """
  What to do:

  - `{:machine, event}`: tell the handshake's machine.
  - `:finish_sending`: no more is sent, and what is still queued is given up. `:shutdown`: no more is sent.
  - `:start_linger`: send `:linger_timeout` when the option's time is over.
  - `:suspend_link`: the link's end will be because of a suspension.
  - `{:copy, reason}`: let go of what is shared; serve the owner from a copy, then with `reason`.
  - `{:free, reason}`: free the link.
  - `{:failed, reason}`: the first failure, for telemetry.
  - `:tip_done`: the store is needed no longer.
  - `{:reply, from, answer}`, or `{:closed, pid}` to a process that closed a port.
  - `{:exit_owner, reason}`: an exit signal to the owner of a tube in port mode.
  - `:unregister`: nobody finds the tube any more, and its number is free. `:stop`: end the process.
  """
  @type action ::
          {:machine, :close | :owner_down | :suspend}
          | :finish_sending
          | :shutdown
          | :start_linger
          | :suspend_link
          | {:copy, term}
          | {:free, term}
          | {:failed, term}
          | :tip_done
          | {:reply, GenServer.from(), term}
          | {:closed, pid}
          | {:exit_owner, term}
          | :unregister
          | :stop

  @doc "A tube that begins: at the nock somebody will ask for the result."
  @spec new(:tube | :port | :dist, :nock | :tip) :: t
  def new(mode, role), do: %__MODULE__{mode: mode, opener: if(role == :nock, do: :unclaimed)}

  @doc "What follows from an event. After `:stop` nothing does."
  @spec handle(t, event) :: {t, [action]}
  def handle(%{done: true} = e, _event), do: {e, []}

  def handle(e, event) do
    e = e |> event(event) |> answer_opener() |> answer_suspenders() |> conclude()
    {%{e | actions: []}, Enum.reverse(e.actions)}
  end

  @doc "Has data flowed, and is the link still there to serve its owner?"
  @spec serves_owner?(t) :: boolean
  def serves_owner?(e), do: e.link in [:flowing, :copied]

  @doc "Why the tube ended, for whoever did not end it."
  @spec reason(t) :: term
  def reason(%{failed: reason}) when reason != nil, do: reason
  def reason(%{request: :owner_down}), do: :owner_down
  def reason(_orderly), do: :closed

  ## Of the opening

  defp event(%{opener: :unclaimed} = e, {:await, from}), do: %{e | opener: {:asked, from}}
  defp event(e, {:await, from}), do: act(e, {:reply, from, {:error, :closed}})
  defp event(e, :link), do: %{e | link: :idle}
  defp event(e, :start), do: %{e | link: :flowing}
  defp event(e, {:connected, tube}), do: %{e | tube: tube}

  ## Of the machine

  defp event(%{failed: nil} = e, {:failed, reason}),
    do: act(%{e | failed: reason}, {:failed, reason})

  defp event(e, {:failed, _later}), do: e
  defp event(e, :free), do: release(e)
  defp event(%{stopped: nil} = e, {:stop, reason}), do: act(%{e | stopped: reason}, :tip_done)
  defp event(e, {:stop, _cut_short}), do: e

  ## Of the link

  defp event(e, :drained), do: %{e | drained: true}
  defp event(e, :protocol), do: %{e | violated: true}
  defp event(e, :link_closed), do: %{e | link: :closed}

  # After a failure there is nothing more to take, whatever the machine has still to do in the store.
  defp event(%{failed: nil} = e, :owner_told), do: %{e | owner_told: true}
  defp event(e, :owner_told), do: release(%{e | owner_told: true})

  ## Of the owner

  defp event(%{request: request} = e, {:close, closer}) when request in [nil, :suspend],
    do: request(%{e | closers: [closer]}, :close)

  defp event(e, {:close, {:port, _pid} = closer}), do: %{e | closers: [closer | e.closers]}
  defp event(e, {:close, from}), do: act(e, {:reply, from, {:error, :closed}})

  defp event(%{request: request} = e, :owner_down) when request in [nil, :suspend],
    do: request(%{e | owner: :gone}, :owner_down)

  defp event(e, :owner_down), do: %{e | owner: :gone}

  # What was accepted is sent before the end is said.
  defp event(%{unsent: true} = e, :shutdown), do: %{e | shutdown: true}
  defp event(e, :shutdown), do: act(%{e | shutdown: true}, :shutdown)

  defp event(%{unsent: true} = e, {:unsent, false}) do
    e = %{e | unsent: false}

    cond do
      e.request != nil -> finish(e)
      e.shutdown -> act(e, :shutdown)
      true -> e
    end
  end

  defp event(e, {:unsent, unsent}), do: %{e | unsent: unsent}
  defp event(%{unsent: true} = e, :linger_timeout), do: finish(e)
  defp event(e, :linger_timeout), do: e

  ## Of a suspension

  defp event(e, {:suspend, from}), do: suspend(%{e | suspenders: [from | e.suspenders]})

  # What the peer has not taken by now is lost, and what is left in the store is swept up later.
  defp event(%{suspenders: [_ | _]} = e, :suspend_timeout) do
    e = Enum.reduce(e.suspenders, e, &act(&2, {:reply, &1, {:ok, :cut_short}}))
    failed = e.failed || :suspended
    e = if e.stopped, do: e, else: act(%{e | stopped: failed}, :tip_done)
    release(%{e | failed: failed, suspenders: []})
  end

  defp event(e, :suspend_timeout), do: e

  defp suspend(%{stopped: reason} = e) when reason != nil, do: e
  defp suspend(%{tube: nil} = e), do: act(e, {:machine, :suspend})

  # The owner has not asked for it, so it gets what had arrived, and the reason.
  defp suspend(%{request: nil} = e) do
    e = if e.link == :flowing, do: act(e, :suspend_link), else: e
    request(%{e | failed: e.failed || :suspended}, :suspend)
  end

  defp suspend(e), do: act(e, {:machine, :suspend})

  ## Steps

  defp request(e, request) do
    e = %{e | request: request}
    if e.unsent, do: act(e, :start_linger), else: finish(e)
  end

  defp finish(%{finished: true} = e), do: e

  defp finish(e) do
    act(act(%{e | finished: true, unsent: false}, :finish_sending), {:machine, e.request})
  end

  # A nock that begins again makes another.
  defp release(%{link: :idle} = e), do: act(%{e | link: :freed}, {:free, reason(e)})

  defp release(%{link: link} = e) when link in [:flowing, :copied] do
    cond do
      informed?(e) -> act(%{e | link: :freed}, {:free, reason(e)})
      link == :flowing -> act(%{e | link: :copied}, {:copy, e.failed})
      true -> e
    end
  end

  defp release(e), do: e

  # Does the owner know all that it can learn through the link?
  defp informed?(%{link: link}) when link not in [:flowing, :copied], do: true
  defp informed?(%{request: request}) when request in [:close, :owner_down], do: true
  # An orderly end needs no word beyond the last message: a tube that is gone is closed.
  defp informed?(%{failed: nil, drained: true}), do: true

  # The owner of a port learns the reason by an exit signal, as soon as there is nothing more to take.
  defp informed?(%{mode: :port} = e), do: e.drained or e.violated or e.owner_told
  defp informed?(e), do: e.owner_told

  ## Answers

  # Connected counts, even if the peer has gone since: what it had sent is there to be read.
  defp answer_opener(%{opener: {:asked, from}} = e) do
    cond do
      e.tube != nil -> act(%{e | opener: nil}, {:reply, from, {:ok, e.tube}})
      e.failed != nil -> act(%{e | opener: nil}, {:reply, from, {:error, e.failed}})
      true -> e
    end
  end

  defp answer_opener(e), do: e

  defp answer_suspenders(%{stopped: reason, link: link} = e)
       when reason != nil and link not in [:idle, :flowing] do
    Enum.reduce(e.suspenders, %{e | suspenders: []}, &act(&2, {:reply, &1, :ok}))
  end

  defp answer_suspenders(e), do: e

  defp conclude(e) do
    claimed? = e.opener != :unclaimed or e.owner == :gone

    if e.stopped != nil and claimed? and informed?(e),
      do:
        e
        |> free()
        |> answer_suspenders()
        |> act(:unregister)
        |> answer_closers()
        |> exit_owner()
        |> stop(),
      else: e
  end

  defp free(%{link: link} = e) when link in [:none, :freed], do: e
  defp free(e), do: act(%{e | link: :freed}, {:free, reason(e)})

  defp answer_closers(e) do
    Enum.reduce(Enum.reverse(e.closers), %{e | closers: []}, fn
      {:port, pid}, e -> act(e, {:closed, pid})
      from, e -> act(e, {:reply, from, :ok})
    end)
  end

  # A process that never had the tube has the result of open/2, and nothing else.
  defp exit_owner(%{mode: :port, owner: :alive, tube: tube} = e) when tube != nil do
    reason = if e.request == :close, do: :closed, else: e.failed || e.stopped
    act(e, {:exit_owner, reason})
  end

  defp exit_owner(e), do: e

  defp stop(e), do: act(%{e | done: true}, :stop)

  defp act(e, action), do: %{e | actions: [action | e.actions]}
end
