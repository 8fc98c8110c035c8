defmodule Tube.Connection.Ending do
  @moduledoc false
  # How a tube ends, as data: events in, actions out. It knows no process, link or clock.
  #
  # Several parties take part in an end, in any order: the handshake's machine frees what is shared and
  # cleans up the store; the link reports what the peer did and what the owner has taken; the owner
  # closes, or ends; the machine is suspended. `Tube.Connection.Server` passes their events in, and
  # `Tube.Connection.Effects` performs the actions.
  #
  #     {ending, actions} = Ending.handle(ending, event)
  #
  # ## What holds for every order of events
  #
  # - An end from our side reaches the machine once, when everything accepted has been sent or the
  #   `linger` limit is over.
  # - When the machine frees the link, nothing shared remains. An owner that has more to learn is served
  #   from a private copy: the messages that had arrived, then the reason.
  # - The process stops once the machine has stopped, the opener has the result, and the owner is
  #   informed: by the link, by closing, by its own end, or in port mode by an exit signal.
  # - Each caller gets one reply. Each link is freed once.

  @enforce_keys [:mode]
  defstruct [
    :mode,
    owner: :alive,
    # the caller of open/2: nil at the tip, :unclaimed until it asks for the result
    opener: nil,
    # :none, :idle (made, no data yet), :flowing, :cut, :freed, or :closed (its port, by another process)
    link: :none,
    # %Tube{} once it is open; opaque here
    tube: nil,
    # the end requested on our side: nil, :suspend, :close or :owner_down
    request: nil,
    # the machine knows of it
    finished: false,
    # commands wait for room in the ring
    unsent: false,
    # the owner sends no more than these
    shutdown: false,
    # why there is no tube, or no longer
    failed: nil,
    # the reason with which the machine stopped
    stopped: nil,
    # the owner has taken everything that the peer sent; the owner knows that nothing more comes
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

  @typedoc "A caller, or a process that closes as one closes a port."
  @type closer :: GenServer.from() | {:port, pid}

  @typedoc """
  What happened:

  - `{:await, from}`: the opener asks for the result.
  - `:link`: the link was made. `:start`: data flows. `{:connected, tube}`: the tube is open.
  - `{:failed, reason}`, `:free`, `{:stop, reason}`: as the handshake's machine says
    (`t:Tube.Handshake.op/0`).
  - `:drained`, `:owner_told`, `:protocol`: as the link reports. `:link_closed`: another process closed its port.
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

  - `{:machine, event}`: pass the event to the handshake's machine.
  - `:shutdown`: end our direction. `:finish_sending`: also drop what is still queued.
  - `:start_linger`: start the timer of the option `linger`.
  - `:suspend_link`: a suspension will end the link.
  - `{:cut, reason}`: free everything shared; the owner is served from a copy, then with `reason`.
  - `{:free, reason}`: free the link.
  - `{:failed, reason}`: the first failure, for telemetry.
  - `:tip_done`: this tube no longer needs the store.
  - `{:reply, from, answer}`, or `{:closed, pid}` to a process that closed a port.
  - `{:exit_owner, reason}`: an exit signal to the owner of a tube in port mode.
  - `:unregister`: remove the tube's record and free its number. `:stop`: end the process.
  """
  @type action ::
          {:machine, :close | :owner_down | :suspend}
          | :finish_sending
          | :shutdown
          | :start_linger
          | :suspend_link
          | {:cut, term}
          | {:free, term}
          | {:failed, term}
          | :tip_done
          | {:reply, GenServer.from(), term}
          | {:closed, pid}
          | {:exit_owner, term}
          | :unregister
          | :stop

  @doc "A tube that begins. At the nock, the opener will ask for the result."
  @spec new(:tube | :port | :dist, :nock | :tip) :: t
  def new(mode, role), do: %__MODULE__{mode: mode, opener: if(role == :nock, do: :unclaimed)}

  @doc "Handles an event. After `:stop` there are no actions."
  @spec handle(t, event) :: {t, [action]}
  def handle(%{done: true} = e, _event), do: {e, []}

  def handle(e, event) do
    e = e |> event(event) |> answer_opener() |> answer_suspenders() |> conclude()
    {%{e | actions: []}, Enum.reverse(e.actions)}
  end

  @doc "Has data flowed, and is the link still there to serve its owner?"
  @spec serves_owner?(t) :: boolean
  def serves_owner?(e), do: e.link in [:flowing, :cut]

  @doc "Why the tube ended, for a process that did not end it."
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

  # After a failure nothing more can be taken, so the link need not wait for the store.
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

  # Accepted messages go first.
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

  # What the peer has not taken by now is lost. A later start sweeps up what is left in the store.
  defp event(%{suspenders: [_ | _]} = e, :suspend_timeout) do
    e = Enum.reduce(e.suspenders, e, &act(&2, {:reply, &1, {:ok, :cut_short}}))
    failed = e.failed || :suspended
    e = if e.stopped, do: e, else: act(%{e | stopped: failed}, :tip_done)
    release(%{e | failed: failed, suspenders: []})
  end

  defp event(e, :suspend_timeout), do: e

  defp suspend(%{stopped: reason} = e) when reason != nil, do: e
  defp suspend(%{tube: nil} = e), do: act(e, {:machine, :suspend})

  # The owner did not ask for this end, so it gets what had arrived, and the reason.
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

  defp release(%{link: link} = e) when link in [:flowing, :cut] do
    cond do
      informed?(e) -> act(%{e | link: :freed}, {:free, reason(e)})
      link == :flowing -> act(%{e | link: :cut}, {:cut, e.failed})
      true -> e
    end
  end

  defp release(e), do: e

  # Whether the owner can learn nothing more through the link.
  defp informed?(%{link: link}) when link not in [:flowing, :cut], do: true
  defp informed?(%{request: request}) when request in [:close, :owner_down], do: true
  # After an orderly end the last message is all: operations on a tube that is gone give :closed.
  defp informed?(%{failed: nil, drained: true}), do: true

  # In port mode an exit signal tells the reason, as soon as nothing more can be taken.
  defp informed?(%{mode: :port} = e), do: e.drained or e.violated or e.owner_told
  defp informed?(e), do: e.owner_told

  ## Answers

  # The tube, even if the peer has gone since: the opener can still read what it had sent.
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

  # An opener that never had the tube gets an error, and no signal.
  defp exit_owner(%{mode: :port, owner: :alive, tube: tube} = e) when tube != nil do
    reason = if e.request == :close, do: :closed, else: e.failed || e.stopped
    act(e, {:exit_owner, reason})
  end

  defp exit_owner(e), do: e

  defp stop(e), do: act(%{e | done: true}, :stop)

  defp act(e, action), do: %{e | actions: [action | e.actions]}
end
