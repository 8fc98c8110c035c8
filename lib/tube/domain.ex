defmodule Tube.Domain do
  @moduledoc false
  # This VM as a domain: who it is, what its platform is, its connection to the store.
  #
  # Nothing is attached until somebody needs it. On the local platform this process then holds the
  # domain's life: the hub sees it end with this process, and this process sees the hub's end. (On
  # Xen the domain outlives the VM, and only the connection to the store can be lost.) Open tubes
  # survive that, since no byte of theirs passes through the hub; but their domain has to come back
  # under the same number and publish itself anew. So, as long as there are subscribers, it tries
  # for ever to attach again as who it was, and tells them:
  #
  #     {:tube_domain, :lost}              the store has gone, and what was published in it
  #     {:tube_domain, :attached, domain}  a new store, with none of it: publish again
  #
  # They are also told {:tube_domain, :released} when some domain has ended, where the store tells us.
  #
  # Without subscribers it waits for the next call. While it tries, calls fail at once.
  #
  # So they do from `hold/1` to `resume/1`, between which the machine may be suspended or moved.
  #
  # `Tube.Domain.Server` is the process; this is how to speak with it.

  alias Tube.Domain.{Server, Settings}
  alias Tube.Domain.Hub
  alias Tube.Native

  @enforce_keys [:platform, :name, :domid, :run_dir, :store]
  defstruct @enforce_keys

  @typedoc "An attached domain. `store` is valid until the next `:lost`; on Xen there is no `run_dir`."
  @type t :: %__MODULE__{
          platform: Native.platform(),
          name: :local | :xen,
          domid: Tube.Paths.domid(),
          run_dir: Path.t() | nil,
          store: pid()
        }

  @typedoc "A kind for programs, a sentence for people."
  @type error :: {:error, {atom(), String.t()}}

  # An attempt ends earlier than that, whatever hangs.
  @call_ms 25_000

  @doc "Starts the process. `:name` is for tests that are several domains in one VM."
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts \\ []) do
    opts = Keyword.validate!(opts, name: __MODULE__)
    GenServer.start_link(Server, nil, opts)
  end

  @doc false
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(opts), do: %{id: __MODULE__, start: {__MODULE__, :start_link, [opts]}}

  @doc """
  Attaches, if that has not been done. Options (`Tube.Domain.Settings`) must not contradict what
  the domain is already.

  Reasons: `:bad_run_dir`, `:einval`, `:no_hub`, `:hub_version`, `:not_a_hub`, `:domid_taken`,
  `:timeout`, `:suspended`, those of `missing/1`, or a posix name.
  """
  @spec attach(keyword()) :: {:ok, t()} | error()
  def attach(opts \\ []), do: attach(__MODULE__, opts)

  @doc "The same for another process than the VM's one."
  @spec attach(GenServer.server(), keyword()) :: {:ok, t()} | error()
  def attach(server, opts) when is_list(opts), do: call(server, {:attach, opts})

  @doc "The domid of this VM. Attaches."
  @spec domid(GenServer.server()) :: {:ok, Tube.Paths.domid()} | error()
  def domid(server \\ __MODULE__), do: field(server, :domid)

  @doc "The platform resource, for `Tube.Native`. Attaches."
  @spec platform(GenServer.server()) :: {:ok, Native.platform()} | error()
  def platform(server \\ __MODULE__), do: field(server, :platform)

  @doc "The connection to the store, for `Tube.Xenstore`. Attaches."
  @spec store(GenServer.server()) :: {:ok, pid()} | error()
  def store(server \\ __MODULE__), do: field(server, :store)

  @doc """
  What this machine lacks for a platform, each with a sentence on its cure; does not attach, and
  `[]` does not promise that attaching will succeed.
  """
  @spec missing(:local | :xen) :: [{atom(), String.t()}]
  def missing(:xen), do: Native.xen_missing()

  def missing(:local) do
    with {:ok, _settings} <- Settings.resolve(platform: :local),
         true <- File.exists?(Hub.executable()) do
      []
    else
      {:error, error} -> [error]
      false -> [{:no_hub, "#{Hub.executable()} is not there: mix compile builds it"}]
    end
  end

  @doc """
  How things stand; does not attach. `:hub` is `:up`, `:down` (and being waited for), `:attaching`,
  or `:unknown` while nobody has needed it; `:error` is what the last attempt failed with.
  """
  @spec info(GenServer.server()) :: %{
          platform: :local | :xen | nil,
          domid: Tube.Paths.domid() | nil,
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

  @doc "From now on nobody is let in, with reason `:suspended`. Who has the domain keeps it."
  @spec hold(GenServer.server()) :: :ok
  def hold(server \\ __MODULE__), do: GenServer.call(server, :hold)

  @doc "Detaches a domain that is held. Subscribers are told `:lost`, and `:attached` after `resume/1`."
  @spec leave(GenServer.server()) :: :ok
  def leave(server \\ __MODULE__), do: GenServer.call(server, :leave, @call_ms)

  @doc """
  Ends a hold. A domain that was left is attached again: on the local platform as the same one, on Xen as
  whichever the machine is now. If that fails it goes on trying, as after a loss.
  """
  @spec resume(GenServer.server()) :: :ok | error()
  def resume(server \\ __MODULE__) do
    with {:ok, _domain} <- call(server, :resume), do: :ok
  end

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
end
