defmodule Tube.Dist do
  @moduledoc false
  # Distributed Erlang over tubes: the implementation of the carrier `:tube_dist`. net_kernel and
  # its processes call it, perhaps before any application runs, so it needs neither an application
  # nor OTP's file server.
  #
  # Node `name@dom<N>` is the service "dist-name" of domain N. The host part of this node's name
  # says which domain this VM becomes. In a name such as `dom<N>.machine`, tubes connect nodes with
  # the same machine part, and other carriers reach the nodes of other machines.
  #
  # Each packet of OTP's handshake is one message. Then `control/1` links the tube's port, which
  # takes the VM's packets from then on, to the connection, and `input/1` makes it deliver the
  # peer's.

  alias Tube.Dist.Settings
  alias Tube.{Connection, Domain, Error, Listener, Native, Options, Paths, Xenstore}
  alias Tube.Connection.BusyPoller

  require Paths

  @type text :: charlist

  # Pause between attempts to listen again after the library's processes have ended.
  @listen_again_ms 1_000

  ## This node

  @doc "Makes this VM the domain of its node name, and listens for other nodes."
  @spec listen(atom, charlist) :: {:ok, Tube.listener()} | {:error, text}
  def listen(name, host) do
    with {:ok, domid, machine} <- own_place(host),
         {:ok, service} <- service(to_string(name)),
         {:ok, settings} <- Settings.get(),
         :ok <- check_order(:init.get_argument(:proto_dist)),
         :ok <- load_native(),
         :ok <- explained(Tube.Supervisor.ensure_started()),
         {:ok, _domain} <- explained(Domain.attach(domid: domid)),
         {:ok, listener} <- listen_as(service, settings) do
      # If the library's processes restart, they become the same domain.
      Application.put_env(:tube, :domid, domid, persistent: true)
      :persistent_term.put({__MODULE__, :service}, service)
      :persistent_term.put({__MODULE__, :machine}, machine)
      {:ok, listener}
    end
  end

  defp listen_as(service, settings) do
    own = [service: service, peers: settings.peers, timeout: setup_ms()]
    with {:ok, options} <- options(own, :listen, settings), do: explained(Listener.open(options))
  end

  # OTP's own limit for a new connection. `connect/2` gets it from its caller.
  defp setup_ms do
    case :application.get_env(:kernel, :net_setuptime) do
      {:ok, seconds} when is_number(seconds) and seconds > 0 -> round(min(seconds, 120) * 1000)
      _unset -> 7_000
    end
  end

  # Options of the public API, and `mode: :dist`, which only distribution may use.
  defp options(given, place, settings) do
    # The VM's packets are unlimited when either node has fragments off.
    common = [active: false, ring: settings.ring, max_message: Options.max_message()]
    {:ok, %{Options.validate!(given ++ common, place) | mode: :dist}}
  rescue
    exception in ArgumentError -> error(Exception.message(exception))
  end

  # A release loads all its code before the kernel starts (embedded mode), but modules with native
  # code run their on_load only after the kernel, and so after distribution, has started. Run the
  # handlers now: the code server, which they ask for the path of their library, is already running.
  defp load_native do
    case :code.ensure_loaded(Native) do
      {:module, Native} -> :ok
      {:error, :embedded} -> :init.run_on_load_handlers()
      {:error, reason} -> error("the native library cannot be loaded: #{inspect(reason)}")
    end
  end

  @doc "Stops listening. Connections stay."
  @spec close(Tube.listener()) :: :ok
  def close(listener) do
    GenServer.stop(listener)
  catch
    :exit, _gone -> :ok
  end

  @doc """
  Waits for a tube from another node. Returns it with the listener for the next call, which is a new
  one if the library's processes have restarted.
  """
  @spec accept(Tube.listener()) :: {Tube.t(), Tube.listener()}
  def accept(listener) do
    case Tube.accept(listener) do
      {:ok, tube} -> {tube, listener}
      {:error, _closed} -> accept(listen_again())
    end
  end

  defp listen_again do
    with {:ok, settings} <- Settings.get(),
         :ok <- Tube.Supervisor.ensure_started(),
         {:ok, listener} <- listen_as(:persistent_term.get({__MODULE__, :service}), settings) do
      listener
    else
      _not_yet ->
        receive do
        after
          @listen_again_ms -> listen_again()
        end
    end
  end

  ## Other nodes

  @doc "Whether tubes connect this node to `node`. If not, net_kernel asks the next carrier."
  @spec reachable?(node) :: boolean
  def reachable?(node) do
    with {:ok, _name, _domid} <- parse(node), {:ok, settings} <- Settings.get() do
      settings.connect
    else
      _no -> false
    end
  end

  @doc """
  Opens a tube to a node. The caller is killed after `ms` milliseconds, so the time limit of the
  open is a little shorter, which leaves time to log why it failed.
  """
  @spec connect(node, pos_integer) :: {:ok, Tube.t()} | {:error, term}
  def connect(node, ms) do
    with {:ok, name, domid} <- parse(node),
         {:ok, service} <- service(name),
         {:ok, settings} <- Settings.get(),
         :ok <- explained(Tube.Supervisor.ensure_started()),
         {:ok, domain} <- explained(Domain.attach()),
         :ok <- check_service(domain, domid, service),
         {:ok, tube} <- open(domid, service, settings, ms) do
      Registry.delete_meta(Tube.Registry, {__MODULE__, node})
      {:ok, tube}
    else
      {:error, text} ->
        notice(node, text)
        {:error, :no_tube}
    end
  end

  # Callers that wait for a node retry: do not log the same text again.
  defp notice(node, text) do
    key = {__MODULE__, node}

    unless Registry.meta(Tube.Registry, key) == {:ok, text} do
      Registry.put_meta(Tube.Registry, key, text)
      :logger.notice(~c"~ts: no tube to node ~ts: ~ts", [node(), node, text])
    end
  rescue
    # Without the library's processes there is no registry.
    ArgumentError -> :logger.notice(~c"~ts: no tube to node ~ts: ~ts", [node(), node, text])
  end

  defp open(domid, service, settings, ms) do
    with {:ok, options} <- options([service: service, timeout: div(ms * 9, 10)], :open, settings) do
      case Connection.open(domid, options) do
        {:error, :timeout} ->
          error(
            "domain #{domid} does not respond: it is stopped, or accepts no tubes from this domain"
          )

        opened ->
          explained(opened)
      end
    end
  end

  # `Tube.open/2` waits for a listener. A node must be up already, as with other carriers.
  defp check_service(domain, domid, service) do
    case Xenstore.read(domain.store, Paths.service(domid, service)) do
      {:ok, _instance} ->
        :ok

      {:error, :enoent} ->
        error(
          "domain #{domid} does not exist or has no node of that name " <>
            "(no #{Paths.service(domid, service)})"
        )

      {:error, :eacces} ->
        error(
          "domain #{domid} does not exist, accepts no tubes, or hides its services from this " <>
            "domain (permission denied)"
        )

      error ->
        explained(error)
    end
  end

  ## A connection

  @doc "Sends a packet of OTP's handshake."
  @spec send(Tube.t(), iodata) :: :ok | {:error, term}
  def send(tube, data) do
    Port.command(tube.port, data)
    :ok
  rescue
    ArgumentError -> {:error, :closed}
  end

  @doc "Receives a packet of OTP's handshake, whose process has its own time limit."
  @spec recv(Tube.t(), 0, timeout) :: {:ok, [byte]} | {:error, term}
  def recv(tube, 0, timeout) do
    with {:ok, data} <- Tube.recv(tube, timeout), do: {:ok, :binary.bin_to_list(data)}
  end

  @doc "Links the port to the caller, the tube's owner. The VM writes to the port from here on."
  @spec control(Tube.t()) :: :ok | {:error, :closed}
  def control(tube) do
    Process.link(tube.port)
    :ok
  rescue
    # The port has already ended.
    ErlangError -> {:error, :closed}
  end

  @doc "Makes the port deliver the peer's packets to the VM."
  @spec input(Tube.t()) :: :ok | {:error, atom}
  def input(tube) do
    with :ok <- Native.Driver.dist_input(tube.port) do
      # The poller is linked to the caller, so the connection does not outlive it.
      with {:ok, settings} <- Settings.get(), do: BusyPoller.set(nil, tube, settings.poll)
      :ok
    end
  end

  @doc "Sends a tick, which shows that this node is alive."
  @spec tick(Tube.t()) :: :ok | {:error, atom}
  def tick(tube), do: Native.Driver.dist_tick(tube.port)

  @doc "Returns the packets received and sent, and the bytes that wait to be sent."
  @spec getstat(Tube.t()) ::
          {:ok, non_neg_integer, non_neg_integer, non_neg_integer} | {:error, atom}
  def getstat(tube) do
    with {:ok, %{rx: rx, tx: tx}} <- Native.info(tube.id),
         {:queue_size, queued} <- Port.info(tube.port, :queue_size) do
      {:ok, rx.messages, tx.messages, queued}
    else
      nil -> {:error, :closed}
      error -> error
    end
  end

  @doc "Whether the VM may split large messages."
  @spec fragments?() :: boolean
  def fragments? do
    case Settings.get() do
      {:ok, settings} -> settings.fragments
      {:error, _text} -> true
    end
  end

  ## Names

  defp parse(node) do
    with [name, host] when name != "" <- String.split(Atom.to_string(node), "@"),
         {:ok, domid, machine} <- place(host),
         # A node that gets its name from the first node it connects to has no machine part before.
         true <- :persistent_term.get({__MODULE__, :machine}, machine) == machine do
      {:ok, name, domid}
    else
      false -> error("its name says that it is on another machine")
      _other -> error("tubes connect only nodes that are named name@dom<N>")
    end
  end

  defp own_place(host) do
    with :error <- place(to_string(host)) do
      error(
        "the host part of the node's name is #{host}, it must be dom<N> with the number of this " <>
          "domain: -sname name@dom5"
      )
    end
  end

  defp place("dom" <> rest) do
    {digits, machine} =
      case String.split(rest, ".", parts: 2) do
        [digits] -> {digits, ""}
        [digits, machine] -> {digits, machine}
      end

    # Only the canonical number: one name for each domain.
    with {domid, ""} when Paths.is_domid(domid) <- Integer.parse(digits),
         ^digits <- Integer.to_string(domid) do
      {:ok, domid, machine}
    else
      _other -> :error
    end
  end

  defp place(_host), do: :error

  defp service(name) when byte_size(name) <= 59, do: {:ok, "dist-" <> name}

  defp service(_name),
    do: error("the part of the node's name before the @ has more than 59 bytes")

  # net_kernel asks the last carrier first, and inet_tcp accepts every name that epmd knows.
  defp check_order({:ok, [carriers]}) do
    if List.last(carriers) == ~c"tube",
      do: :ok,
      else: error("tube must be the last of several carriers: -proto_dist inet_tcp tube")
  end

  defp check_order(_other), do: :ok

  defp error(text), do: {:error, to_charlist(text)}

  defp explained({:error, reason}), do: error(Error.message(reason))
  defp explained(fine), do: fine
end
