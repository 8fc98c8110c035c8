defmodule Tube.Connection.State do
  @moduledoc false
  # The state of a tube's process.

  alias Tube.Connection.{CommandQueue, Ending, Owner, Registry}
  alias Tube.{Domain, Handshake, Native}

  defstruct [
    :role,
    :module,
    :machine,
    :domain,
    :peer,
    :tid,
    :options,
    # %Tube{} while there is a link
    :tube,
    # `Tube.Connection.Ending`
    :ending,
    # at the tip: the listener that takes the tube, the dispatcher that let it in
    :listener,
    :dispatcher,
    :owner,
    # of `Tube.Telemetry`
    span: nil,
    # the process of `Tube.Connection.BusyPoller`, if any
    poller: nil,
    commands: CommandQueue.new(:wait),
    timers: %{},
    store_up: true,
    xenbus_state: 1
  ]

  @type t :: %__MODULE__{}

  @typedoc "What a tube begins with: at the nock the process that opens, at the tip the open request."
  @type args ::
          {:nock, Domain.t(), Tube.domid(), Tube.Options.t(), opener :: pid}
          | {:tip, Domain.t(), Handshake.OpenRequest.t(), Tube.Options.t(), listener :: pid,
             dispatcher :: pid, verdict :: term}

  @doc "Begins a tube. Returns the first operations of its handshake."
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
        ending: Ending.new(options.mode, :nock),
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
      ending: Ending.new(options.mode, :tip),
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

  @doc "A random name for one attempt of a handshake."
  @spec nonce() :: Tube.Paths.nonce()
  def nonce, do: Base.encode16(:crypto.strong_rand_bytes(8), case: :lower)

  @doc "The record of a connected tube."
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

  @doc "The metadata of telemetry events."
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
         state: state.xenbus_state,
         owner: state.owner && state.owner.pid
       })}
    end
  end
end
