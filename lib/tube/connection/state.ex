defmodule Tube.Connection.State do
  @moduledoc false
  # What the process of one tube knows: how it begins, and what follows from it.

  alias Tube.Connection.{CommandQueue, Owner, Registry}
  alias Tube.{Domain, Handshake, Native}

  defstruct [
    :role,
    :module,
    :machine,
    :domain,
    :peer,
    :tid,
    :options,
    # %Tube{} from the moment that the rings exist
    :tube,
    # who gets the answer of open/2; who gets the answer of close/1
    :opener,
    :closer,
    # at the tip: the listener that takes the tube, the dispatcher that let it in
    :listener,
    :dispatcher,
    :owner,
    # why the machine stopped; the rings live on until the owner knows
    :ended,
    # why there is no tube, or none any more
    failed: nil,
    # at the nock: whoever opens has not come yet for the answer
    unasked: false,
    connected: false,
    listening: false,
    drained: false,
    owner_told: false,
    # the event that the machine gets once all commands are sent
    closing: nil,
    # the rings have gone, and the owner is served from a copy
    cut: false,
    # who waits for all that is shared to be given back
    suspenders: [],
    # the owner sends no more than the commands that it gave
    shutting: false,
    # what `Tube.Telemetry` makes of it
    span: nil,
    # the process that looks for data, see `Tube.Connection.BusyPoller`
    poller: nil,
    commands: CommandQueue.new(:wait),
    timers: %{},
    store_up: true,
    state: 1
  ]

  @type t :: %__MODULE__{}

  @typedoc "What a tube begins with: at the nock who asks, at the tip the open request and its listener."
  @type args ::
          {:nock, Domain.t(), Tube.domid(), Tube.Options.t(), opener :: pid}
          | {:tip, Domain.t(), Handshake.OpenRequest.t(), Tube.Options.t(), listener :: pid, term}

  @doc "A new tube, and the first operations of its handshake."
  @spec new(args) :: {:ok, t, [Handshake.op()]} | {:error, :eexist | :busy}
  def new({:nock, domain, peer, options, opener}) do
    with {:ok, tid} <- Registry.claim_tid(peer, options.tid) do
      params = %{
        me: domain.domid,
        peer: peer,
        tid: tid,
        nonce: nonce(),
        service: options.service,
        limits: limits(options)
      }

      {machine, ops} = Handshake.Nock.new(params)

      state = %__MODULE__{
        role: :nock,
        unasked: true,
        module: Handshake.Nock,
        machine: machine,
        domain: domain,
        peer: peer,
        tid: tid,
        options: options,
        commands: CommandQueue.new(options.on_full),
        owner: Owner.new(opener, options.mode)
      }

      {:ok, state, ops}
    end
  end

  def new({:tip, domain, request, options, listener, dispatcher, verdict}) do
    # One at a time for each open request: the dispatcher sees to that.
    params = %{
      me: domain.domid,
      peer: request.peer,
      tid: request.tid,
      nonce: request.nonce,
      verdict: verdict,
      limits: limits(options)
    }

    {machine, ops} = Handshake.Tip.new(params)

    state = %__MODULE__{
      role: :tip,
      module: Handshake.Tip,
      machine: machine,
      domain: domain,
      peer: request.peer,
      tid: request.tid,
      options: options,
      commands: CommandQueue.new(options.on_full),
      listener: listener,
      dispatcher: dispatcher,
      owner: Owner.new(listener, options.mode)
    }

    {:ok, state, ops}
  end

  defp limits(options), do: %{handshake: options.timeout, close: max(options.linger, 1)}

  @doc "Names one attempt of a handshake."
  @spec nonce() :: Tube.Paths.nonce()
  def nonce, do: Base.encode16(:crypto.strong_rand_bytes(8), case: :lower)

  @doc """
  Has the owner still to hear something through the rings? What the peer sent last, or why the
  tube ended.
  """
  @spec owner_unaware?(t) :: boolean
  def owner_unaware?(%{tube: nil}), do: false
  def owner_unaware?(%{listening: false}), do: false
  def owner_unaware?(%{closing: closing}) when closing in [:close, :owner_down], do: false
  # An orderly end needs no word beyond the last message: a tube that is gone is closed.
  def owner_unaware?(%{failed: nil, drained: true}), do: false
  # A port's owner is told by its exit.
  def owner_unaware?(%{owner: %{mode: :port}, drained: drained}), do: not drained
  def owner_unaware?(%{owner_told: told?}), do: not told?

  @doc "Is somebody about to ask how the opening went? It may have failed sooner than that."
  @spec unasked?(t) :: boolean
  def unasked?(state), do: state.unasked and state.owner != nil

  @doc "Is all given back that is shared with the peer, in memory and in the store?"
  @spec gone?(t) :: boolean
  def gone?(state), do: state.ended != nil and (state.tube == nil or state.cut)

  @doc "What is registered of a tube from its connection to its end."
  @spec record(t) :: Registry.record()
  def record(state) do
    %{
      tube: state.tube,
      send_timeout: state.options.send_timeout,
      dropped: state.commands.dropped,
      role: state.role,
      me: state.domain.domid,
      peer: state.peer,
      tid: state.tid,
      service: state.options.service,
      mode: state.options.mode,
      span: state.span.metadata
    }
  end

  @doc "What events tell of the tube, from the start."
  @spec metadata(t) :: map
  def metadata(state) do
    %{
      role: state.role,
      domid: state.domain.domid,
      peer: state.peer,
      tid: state.tid,
      service: state.options.service
    }
  end

  @doc "Why the tube ended, to those who were not told by a call."
  @spec why(t) :: atom
  def why(%{failed: reason}) when reason != nil, do: reason
  def why(%{closing: :owner_down}), do: :owner_down
  def why(_orderly), do: :closed

  @doc "For `Tube.info/1`."
  @spec info(t) :: {:ok, map} | {:error, :closed}
  def info(%{tube: nil}), do: {:error, :closed}

  def info(state) do
    with {:ok, native} <- Native.info(state.tube.id) do
      {:ok,
       Map.merge(native, %{
         role: state.role,
         peer: state.peer,
         tid: state.tid,
         service: state.options.service,
         mode: state.options.mode,
         state: state.state,
         owner: state.owner && state.owner.pid
       })}
    end
  end
end
