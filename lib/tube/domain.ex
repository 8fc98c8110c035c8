defmodule Tube.Domain do
  @moduledoc false
  # This VM as a domain: who it is, what its platform is, its connection to the store.
  #
  # Nothing is attached until somebody needs it. From then on this process holds the domain's life:
  # the hub sees it end with this process, and this process sees the hub's end. Open tubes survive
  # that, since no byte of theirs passes through the hub; but their domain has to come back under
  # the same number and publish itself anew. So, as long as there are subscribers, it tries for
  # ever to attach again as who it was, and tells them:
  #
  #     {:tube_domain, :lost}              the store has gone, and what was published in it
  #     {:tube_domain, :attached, domain}  a new store, with none of it: publish again
  #
  # Without subscribers it waits for the next call. While it tries, calls fail at once.
  #
  # Attaching may mean starting a program, and a hub may hang: a process of its own does it, so
  # that this one always answers.

  use GenServer

  alias Tube.Domain.{Attempt, Settings}
  alias Tube.Native
  alias Tube.Xenstore.{Client, Stream}

  require Logger

  @enforce_keys [:platform, :name, :domid, :run_dir, :store]
  defstruct @enforce_keys

  @typedoc "An attached domain. `store` is valid until the next `:lost`."
  @type t :: %__MODULE__{
          platform: Native.platform(),
          name: :local,
          domid: 0..0x7FEF,
          run_dir: Path.t(),
          store: pid()
        }

  @typedoc "A kind for programs, a sentence for people."
  @type error :: {:error, {atom(), String.t()}}

  # One attempt: a hub may be started (10 s) and then has to answer (5 s).
  @attempt_ms 20_000
  @call_ms 25_000

  # Between attempts, doubling. All VMs of a host lose their hub at the same moment: the jitter
  # keeps them from coming back at the same moment too.
  @pause_ms 20
  @pause_max_ms 5_000

  ## Calls

  @doc "Starts the process. `:name` is for tests that are several domains in one VM."
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts \\ []) do
    opts = Keyword.validate!(opts, name: __MODULE__)
    GenServer.start_link(__MODULE__, nil, opts)
  end

  @doc """
  Attaches, if that has not been done. Options (`Tube.Domain.Settings`) must not contradict what
  the domain is already.

  Reasons: `:bad_run_dir`, `:einval`, `:no_hub`, `:hub_version`, `:not_a_hub`, `:domid_taken`,
  `:timeout`, or a posix name.
  """
  @spec attach(keyword()) :: {:ok, t()} | error()
  def attach(opts \\ []), do: attach(__MODULE__, opts)

  @doc "The same for another process than the VM's one."
  @spec attach(GenServer.server(), keyword()) :: {:ok, t()} | error()
  def attach(server, opts), do: call(server, {:attach, opts})

  @doc "The domid of this VM. Attaches."
  @spec domid(GenServer.server()) :: {:ok, 0..0x7FEF} | error()
  def domid(server \\ __MODULE__), do: field(server, :domid)

  @doc "The platform resource, for `Tube.Native`. Attaches."
  @spec platform(GenServer.server()) :: {:ok, Native.platform()} | error()
  def platform(server \\ __MODULE__), do: field(server, :platform)

  @doc "The connection to the store, for `Tube.Xenstore`. Attaches."
  @spec store(GenServer.server()) :: {:ok, pid()} | error()
  def store(server \\ __MODULE__), do: field(server, :store)

  @doc """
  How things stand; does not attach. `:hub` is `:up`, `:down` (and being waited for), `:attaching`,
  or `:unknown` while nobody has needed it; `:error` is what the last attempt failed with.
  """
  @spec info(GenServer.server()) :: %{
          platform: :local | nil,
          domid: 0..0x7FEF | nil,
          run_dir: Path.t() | nil,
          hub: :up | :down | :attaching | :unknown,
          error: {atom(), String.t()} | nil
        }
  def info(server \\ __MODULE__), do: GenServer.call(server, :info)

  @doc "From now on the calling process is told of loss and return, and is a reason to come back."
  @spec subscribe(GenServer.server()) :: :ok
  def subscribe(server \\ __MODULE__), do: GenServer.call(server, :subscribe)

  @doc "Ends that. So does the end of the process."
  @spec unsubscribe(GenServer.server()) :: :ok
  def unsubscribe(server \\ __MODULE__), do: GenServer.call(server, :unsubscribe)

  @doc "Leaves in good order: the domain ends. Subscribers are told `:lost`; the next call attaches anew."
  @spec detach(GenServer.server()) :: :ok
  def detach(server \\ __MODULE__), do: GenServer.call(server, :detach, @call_ms)

  defp field(server, key) do
    with {:ok, domain} <- attach(server, []), do: {:ok, Map.fetch!(domain, key)}
  end

  defp call(server, message) do
    case GenServer.call(server, message, @call_ms) do
      {:raise, error} -> raise error
      answer -> answer
    end
  catch
    :exit, {:timeout, _call} -> {:error, {:timeout, "attaching took longer than #{@call_ms} ms"}}
  end

  ## The process

  # `phase` is :idle (nobody needs it), {:attempt, pid, monitor, timer}, :attached or {:pause, timer}.
  # `wanted` are the settings to attach with; once attached, with the domid that it became.
  # `platform` while not attached: the domain lives, only its store has to be connected to again.
  defmodule State do
    @moduledoc false
    defstruct phase: :idle,
              lost: false,
              wanted: nil,
              domain: nil,
              platform: nil,
              life: nil,
              since: nil,
              failures: 0,
              error: nil,
              callers: [],
              subscribers: %{}
  end

  @impl true
  def init(_none) do
    Process.flag(:trap_exit, true)
    {:ok, %State{}}
  end

  @impl true
  def handle_call({:attach, []}, _from, %{phase: :attached} = state),
    do: {:reply, {:ok, state.domain}, state}

  def handle_call({:attach, opts}, from, state) do
    case Settings.resolve(opts) do
      {:ok, settings} ->
        # Only what was asked for in so many words: the environment may have changed since.
        named = for {key, value} <- opts, value != nil, do: key
        attach_as(settings, {from, Map.take(settings, named)}, state)

      {:error, _} = error ->
        {:reply, error, state}
    end
  rescue
    error in ArgumentError -> {:reply, {:raise, error}, state}
  end

  def handle_call(:info, _from, state) do
    info = %{
      platform: if(state.phase == :attached, do: state.domain.name),
      domid: state.wanted && state.wanted.domid,
      run_dir: state.wanted && state.wanted.run_dir,
      hub: hub(state),
      error: state.error
    }

    {:reply, info, state}
  end

  def handle_call(:subscribe, {pid, _tag}, state) do
    subscribers = Map.put_new_lazy(state.subscribers, pid, fn -> Process.monitor(pid) end)
    {:reply, :ok, %{state | subscribers: subscribers}}
  end

  def handle_call(:unsubscribe, {pid, _tag}, state), do: {:reply, :ok, forget(pid, state)}

  def handle_call(:detach, _from, state) do
    if state.phase == :attached, do: tell(state, {:tube_domain, :lost})
    {:reply, :ok, leave(state, {:no_hub, "the domain was detached meanwhile"})}
  end

  @impl true
  def handle_info(
        {:DOWN, monitor, :process, _pid, reason},
        %{phase: {:attempt, _, monitor, timer}} = state
      ) do
    :erlang.cancel_timer(timer)
    {:noreply, concluded(reason, %{state | phase: :idle})}
  end

  def handle_info({:DOWN, _monitor, :process, pid, _reason}, state),
    do: {:noreply, forget(pid, state)}

  def handle_info({:timeout, timer, :attempt}, %{phase: {:attempt, pid, _, timer}} = state) do
    Process.exit(pid, :kill)
    {:noreply, state}
  end

  def handle_info({:timeout, timer, :pause}, %{phase: {:pause, timer}} = state),
    do: {:noreply, attempt(state)}

  def handle_info({:EXIT, life, _reason}, %{life: life} = state) do
    state = drop_platform(state)
    {:noreply, if(state.phase == :attached, do: lost(state), else: state)}
  end

  def handle_info({:EXIT, store, reason}, %{phase: :attached, domain: %{store: store}} = state) do
    with {:shutdown, {:protocol, text}} <- reason,
         do: Logger.error("the connection to xenstore was closed, since the store sent #{text}")

    {:noreply, lost(state)}
  end

  def handle_info(_late, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state), do: leave(state, {:no_hub, "this VM is stopping"})

  ## Attaching

  defp attach_as(_settings, {_from, asked}, %{phase: :attached} = state),
    do: {:reply, agreed(asked, state.domain), state}

  # Without a wait: who needs the domain is told when it is back.
  defp attach_as(_settings, _caller, %{lost: true} = state),
    do:
      {:reply, {:error, state.error || {:no_hub, "the hub has gone; it is being waited for"}},
       state}

  defp attach_as(settings, caller, %{phase: :idle} = state),
    do: {:noreply, attempt(%{state | wanted: settings, callers: [caller], failures: 0})}

  defp attach_as(_settings, caller, state),
    do: {:noreply, %{state | callers: [caller | state.callers]}}

  defp agreed(asked, domain) do
    if Map.take(domain, Map.keys(asked)) == asked,
      do: {:ok, domain},
      else: {:error, {:einval, "this VM is domain #{domain.domid} of #{domain.run_dir} already"}}
  end

  defp attempt(%{wanted: settings, platform: platform} = state) do
    {pid, monitor} =
      spawn_monitor(fn ->
        # The result is the reason of its exit, so that there always is one.
        if platform,
          do: exit({:reopened, Attempt.reopen(platform)}),
          else: exit({:attached, Attempt.attach(settings)})
      end)

    %{state | phase: {:attempt, pid, monitor, :erlang.start_timer(@attempt_ms, self(), :attempt)}}
  end

  defp concluded({:attached, {:ok, parts}}, state) do
    # Here, not in the attempt: a driver without ports goes with the process that loaded it.
    case Native.driver() do
      :ok ->
        life = Native.stream_port(parts.life)
        wanted = %{state.wanted | domid: parts.domid}
        connected(parts.store, %{state | platform: parts.platform, life: life, wanted: wanted})

      {:error, reason} ->
        for stream <- [parts.life, parts.store], do: Native.stream_free(stream)
        Native.detach(parts.platform)
        text = "the driver cannot be loaded: #{:erl_ddll.format_error(reason)}"
        failed({:native, text}, state)
    end
  end

  defp concluded({:reopened, {:ok, store}}, %{platform: nil} = state) do
    Native.stream_free(store)
    failed({:no_hub, "the hub has gone"}, state)
  end

  defp concluded({:reopened, {:ok, store}}, state), do: connected(store, state)

  # The domain may be dead without a sign of it, so it is begun anew.
  defp concluded({:reopened, {:error, error}}, state), do: failed(error, drop_platform(state))
  defp concluded({:attached, {:error, error}}, state), do: failed(error, state)

  defp concluded(:killed, state),
    do: failed({:timeout, "no answer within #{@attempt_ms} ms"}, drop_platform(state))

  defp concluded(crash, state),
    do: failed({:native, Exception.format_exit(crash)}, drop_platform(state))

  defp connected(store, state) do
    case Client.start_link({Stream, {store, :socket}}) do
      {:ok, client} ->
        domain = %__MODULE__{
          platform: state.platform,
          name: :local,
          domid: state.wanted.domid,
          run_dir: state.wanted.run_dir,
          store: client
        }

        if state.lost, do: tell(state, {:tube_domain, :attached, domain})

        for {from, asked} <- Enum.reverse(state.callers),
            do: GenServer.reply(from, agreed(asked, domain))

        since = System.monotonic_time(:millisecond)

        %{
          state
          | phase: :attached,
            lost: false,
            domain: domain,
            since: since,
            callers: [],
            error: nil
        }

      {:error, reason} ->
        failed(
          {:store_lost, "the store could not be connected to: #{inspect(reason)}"},
          drop_platform(state)
        )
    end
  end

  defp failed(error, %{lost: true} = state),
    do: pause(%{state | failures: state.failures + 1, error: error})

  defp failed(error, state), do: leave(state, error)

  ## Losing

  defp lost(state) do
    tell(state, {:tube_domain, :lost})
    stop_store(state.domain.store)

    # One that is lost again and again right after it was got is waited for longer and longer.
    stable? = System.monotonic_time(:millisecond) - state.since > @pause_max_ms
    failures = if stable?, do: 0, else: state.failures + 1
    state = %{state | lost: true, domain: nil, failures: failures}
    if state.subscribers == %{}, do: leave(state, nil), else: pause(state)
  end

  defp pause(state) do
    limit = min(@pause_ms * Integer.pow(2, min(state.failures, 16)), @pause_max_ms)
    pause = div(limit, 2) + :rand.uniform(limit)
    %{state | phase: {:pause, :erlang.start_timer(pause, self(), :pause)}}
  end

  # Back to :idle, whatever was going on.
  defp leave(state, error) do
    for {from, _asked} <- state.callers, do: GenServer.reply(from, {:error, error})

    case state.phase do
      {:attempt, pid, monitor, timer} ->
        Process.demonitor(monitor, [:flush])
        Process.exit(pid, :kill)
        :erlang.cancel_timer(timer)

      {:pause, timer} ->
        :erlang.cancel_timer(timer)

      _none ->
        :ok
    end

    if state.domain, do: stop_store(state.domain.store)
    state = drop_platform(state)
    %State{subscribers: state.subscribers, error: error}
  end

  defp drop_platform(%{platform: nil} = state), do: state

  defp drop_platform(state) do
    # Its end is our doing, no news to us.
    Process.unlink(state.life)
    close(state.life)
    Native.detach(state.platform)
    %{state | platform: nil, life: nil}
  end

  defp close(port) do
    Port.close(port)
  rescue
    ArgumentError -> :ok
  end

  # It tells its callers and subscribers by itself.
  defp stop_store(store) do
    Process.unlink(store)
    Process.exit(store, :shutdown)
  end

  defp forget(pid, state) do
    {monitor, subscribers} = Map.pop(state.subscribers, pid)
    if monitor, do: Process.demonitor(monitor, [:flush])
    state = %{state | subscribers: subscribers}
    if state.lost and subscribers == %{}, do: leave(state, state.error), else: state
  end

  defp tell(state, message), do: for({pid, _monitor} <- state.subscribers, do: send(pid, message))

  defp hub(%{phase: :attached}), do: :up
  defp hub(%{phase: :idle}), do: :unknown
  defp hub(%{lost: true}), do: :down
  defp hub(_first_attempt), do: :attaching
end
