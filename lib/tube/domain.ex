defmodule Tube.Domain do
  @moduledoc false
  # This VM as a domain: its number, its platform, its connection to the store. This module holds
  # the calls of the process `Tube.Domain.Server`.
  #
  # The VM attaches when something first needs the domain. On the local platform the process then
  # holds the domain's life: the hub ends the domain with the process, and the process notices the
  # hub's end. (On Xen the domain outlives the VM, and only the connection to the store can be
  # lost.) Open tubes survive a loss, since their data does not pass through the hub; but their
  # domain has to come back under the same number and publish its nodes again. So while there are
  # subscribers, the process tries for ever to attach again as the same domain, and sends them:
  #
  #     {:tube_domain, :lost}              the store is gone, with everything published in it
  #     {:tube_domain, :attached, domain}  a new store, without your nodes: publish again
  #     {:tube_domain, :released}          some domain has ended; only where the store reports it
  #
  # Without subscribers it waits for the next call. While it tries, calls fail at once. They also
  # fail between `hold/1` and `resume/1`, while the machine may be suspended or moved.

  alias Tube.{Native, Paths}
  alias Tube.Domain.{Hub, Settings}

  @enforce_keys [:platform, :name, :domid, :run_dir, :store]
  defstruct @enforce_keys

  @typedoc "An attached domain. `store` is valid until the next `:lost`. Xen has no `run_dir`."
  @type t :: %__MODULE__{
          platform: Native.platform(),
          name: :local | :xen,
          domid: Paths.domid(),
          run_dir: Path.t() | nil,
          store: pid()
        }

  @typedoc "A kind for programs, a sentence for people."
  @type error :: {:error, {atom(), String.t()}}

  # Longer than one attempt to attach can take.
  @call_ms 25_000

  @doc """
  Attaches, if the VM has not yet. Options (`Tube.Domain.Settings`) must not contradict the domain
  that is already attached.

  Reasons: `:bad_run_dir`, `:einval`, `:no_hub`, `:hub_version`, `:not_a_hub`, `:domid_taken`,
  `:timeout`, `:suspended`, those of `missing/1`, or a posix name.
  """
  @spec attach(keyword()) :: {:ok, t()} | error()
  def attach(opts \\ []), do: attach(__MODULE__, opts)

  @doc "The same, for a process other than the VM's own."
  @spec attach(GenServer.server(), keyword()) :: {:ok, t()} | error()
  def attach(server, opts) when is_list(opts), do: call(server, {:attach, opts})

  @doc "The domid of this VM. Attaches."
  @spec domid(GenServer.server()) :: {:ok, Paths.domid()} | error()
  def domid(server \\ __MODULE__), do: field(server, :domid)

  @doc "The connection to the store, for `Tube.Xenstore`. Attaches."
  @spec store(GenServer.server()) :: {:ok, pid()} | error()
  def store(server \\ __MODULE__), do: field(server, :store)

  @doc """
  What this machine lacks for a platform, each with a sentence on how to fix it. Does not attach;
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
      false -> [{:no_hub, "#{Hub.executable()} does not exist: mix compile builds it"}]
    end
  end

  @doc "Subscribes the calling process to loss and return. While it lives, the domain comes back."
  @spec subscribe(GenServer.server()) :: :ok
  def subscribe(server \\ __MODULE__), do: GenServer.call(server, :subscribe)

  @doc "Ends the subscription. So does the end of the process."
  @spec unsubscribe(GenServer.server()) :: :ok
  def unsubscribe(server \\ __MODULE__), do: GenServer.call(server, :unsubscribe)

  @doc "Makes calls fail with `:suspended`. Processes that have the domain keep it."
  @spec hold(GenServer.server()) :: :ok
  def hold(server \\ __MODULE__), do: GenServer.call(server, :hold)

  @doc "Detaches a held domain. Subscribers get `:lost`, and `:attached` after `resume/1`."
  @spec leave(GenServer.server()) :: :ok
  def leave(server \\ __MODULE__), do: GenServer.call(server, :leave, @call_ms)

  @doc """
  Ends a hold. A domain that was left is attached again: on the local platform as the same one, on
  Xen as whichever domain the machine is now. If that fails, it keeps trying, as after a loss.
  """
  @spec resume(GenServer.server()) :: :ok | error()
  def resume(server \\ __MODULE__) do
    with {:ok, _domain} <- call(server, :resume), do: :ok
  end

  @doc "Do these settings agree with an attached domain?"
  @spec check(t(), map()) :: {:ok, t()} | error()
  def check(domain, settings) do
    current = %{platform: domain.name, domid: domain.domid, run_dir: domain.run_dir}

    if Map.take(current, Map.keys(settings)) == settings,
      do: {:ok, domain},
      else: {:error, {:einval, "this VM is already #{describe(domain)}"}}
  end

  @doc "A domain in words, for messages."
  @spec describe(t()) :: String.t()
  def describe(%{name: :xen, domid: domid}), do: "Xen's domain #{domid}"
  def describe(%{domid: domid, run_dir: run_dir}), do: "domain #{domid} of #{run_dir}"

  defp field(server, key) do
    with {:ok, domain} <- attach(server, []), do: {:ok, Map.fetch!(domain, key)}
  end

  defp call(server, message) do
    case GenServer.call(server, message, @call_ms) do
      {:raise, error} -> raise error
      reply -> reply
    end
  catch
    :exit, {:timeout, _call} -> {:error, {:timeout, "attaching took longer than #{@call_ms} ms"}}
  end
end
