defmodule Tube.Dist do
  @moduledoc false
  # What `:tube_dist`, the carrier, does with tubes. Called by net_kernel and its processes, perhaps
  # before any application runs: nothing here needs one, nor OTP's file server.
  #
  # A node `name@dom<N>` is the service "dist-name" of domain N. The host part of this node's own name
  # says which domain this VM is to be. It may go on, `dom<N>.machine`: then tubes lead to nodes whose
  # names go on in the same way, and other carriers to those of other machines.
  #
  # Each packet of OTP's handshake is one message. `control/1` ties the tube's port, which takes the
  # VM's packets from then on, to the connection; `input/1` lets it hand over the peer's.

  alias Tube.Dist.Settings
  alias Tube.{Connection, Domain, Error, Listener, Native, Options, Paths, Xenstore}
  alias Tube.Connection.BusyPoller

  require Paths

  @type text :: charlist

  # Between attempts to listen again, after the library's processes have ended.
  @again_ms 1_000

  ## This node

  @doc "Makes this VM the domain that its name says, and listens for other nodes."
  @spec listen(atom, charlist) :: {:ok, Tube.listener()} | {:error, text}
  def listen(name, host) do
    with {:ok, domid, machine} <- own_place(host),
         {:ok, service} <- service(to_string(name)),
         {:ok, settings} <- Settings.get(),
         :ok <- order(:init.get_argument(:proto_dist)),
         :ok <- native(),
         :ok <- explained(Tube.Supervisor.ensure_started()),
         {:ok, _domain} <- explained(Domain.attach(domid: domid)),
         {:ok, listener} <- listen_as(service, settings) do
      # Should the library's processes ever begin anew: as the same domain.
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

  # As long as OTP gives a connection to come about; who connects is told by its caller.
  defp setup_ms do
    case :application.get_env(:kernel, :net_setuptime) do
      {:ok, seconds} when is_number(seconds) and seconds > 0 -> round(min(seconds, 120) * 1000)
      _unset -> 7_000
    end
  end

  # Those of the public door, and `mode: :dist`, which is not for others.
  defp options(given, place, settings) do
    # A packet of the VM has no limit of its own where fragments are off, here or there.
    common = [active: false, ring: settings.ring, max_message: Options.max_message()]
    {:ok, %{Options.validate!(given ++ common, place) | mode: :dist}}
  rescue
    error in ArgumentError -> {:error, to_charlist(Exception.message(error))}
  end

  # A release has all its code loaded before the kernel starts (embedded mode), but modules with native
  # code wait for the end of the kernel's start, after distribution's. Then all of them go now: the
  # code server, which they ask where their library is, is there already.
  defp native do
    case :code.ensure_loaded(Native) do
      {:module, Native} -> :ok
      {:error, :embedded} -> :init.run_on_load_handlers()
      {:error, reason} -> {:error, to_charlist("the native library: #{inspect(reason)}")}
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
  The next tube that another node has opened, and the listener to go on with: another one, should the
  library's processes have been restarted. Never returns without a tube.
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
          @again_ms -> listen_again()
        end
    end
  end

  ## Other nodes

  @doc "Is that a node that a tube could lead to, and is it to? If not, the next carrier is asked."
  @spec reachable?(node) :: boolean
  def reachable?(node) do
    with {:ok, _name, _domid} <- parse(node), {:ok, settings} <- Settings.get() do
      settings.connect
    else
      _no -> false
    end
  end

  @doc """
  Opens a tube to a node, for a connection that must have come about within `ms`. Says in the log why not,
  for which it leaves itself time: then its caller is killed.
  """
  @spec connect(node, pos_integer) :: {:ok, Tube.t()} | {:error, term}
  def connect(node, ms) do
    with {:ok, name, domid} <- parse(node),
         {:ok, service} <- service(name),
         {:ok, settings} <- Settings.get(),
         :ok <- explained(Tube.Supervisor.ensure_started()),
         {:ok, domain} <- explained(Domain.attach()),
         :ok <- there?(domain, domid, service),
         {:ok, tube} <- open(domid, service, settings, ms) do
      Registry.delete_meta(Tube.Registry, {__MODULE__, node})
      {:ok, tube}
    else
      {:error, text} ->
        notice(node, text)
        {:error, :no_tube}
    end
  end

  # Who waits for a node tries again and again: the same is not said twice.
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
          {:error,
           ~c"domain #{domid} does not answer: it is stopped, or takes no tubes of this domain"}

        opened ->
          explained(opened)
      end
    end
  end

  # A tube is waited for; a node is there or not, as with other carriers.
  defp there?(domain, domid, service) do
    case Xenstore.read(domain.store, Paths.service(domid, service)) do
      {:ok, _instance} ->
        :ok

      {:error, :enoent} ->
        {:error,
         ~c"domain #{domid} does not exist or has no node of that name (no #{Paths.service(domid, service)})"}

      {:error, :eacces} ->
        {:error,
         ~c"domain #{domid} does not exist, takes no tubes, or does not let this domain see that it does (permission denied)"}

      error ->
        explained(error)
    end
  end

  ## A connection

  @doc "The handshake sends a packet."
  @spec send(Tube.t(), iodata) :: :ok | {:error, term}
  def send(tube, data) do
    Port.command(tube.port, data)
    :ok
  rescue
    ArgumentError -> {:error, :closed}
  end

  @doc "The handshake receives one. Its process has a time limit of its own."
  @spec recv(Tube.t(), 0, timeout) :: {:ok, [byte]} | {:error, term}
  def recv(tube, 0, timeout) do
    with {:ok, data} <- Tube.recv(tube, timeout), do: {:ok, :binary.bin_to_list(data)}
  end

  @doc "From here on the VM writes to the port. The caller, the tube's owner, lives as long as it."
  @spec control(Tube.t()) :: :ok | {:error, :closed}
  def control(tube) do
    Process.link(tube.port)
    :ok
  rescue
    # The port has ended before it could be linked to.
    ErlangError -> {:error, :closed}
  end

  @doc "And from here on the VM is handed those of the peer."
  @spec input(Tube.t()) :: :ok | {:error, atom}
  def input(tube) do
    with :ok <- Native.dist_input(tube.port) do
      # Linked to the caller, so the connection does not outlive who looks for its packets.
      with {:ok, settings} <- Settings.get(), do: BusyPoller.set(nil, tube, settings.poll)
      :ok
    end
  end

  @doc "Says that this node is alive."
  @spec tick(Tube.t()) :: :ok | {:error, atom}
  def tick(tube), do: Native.dist_tick(tube.port)

  @doc "Packets received and sent, and bytes that wait to be sent."
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

  @doc "May the VM split large messages?"
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
         # A node that is given its name by the first it connects to has no machine before.
         true <- :persistent_term.get({__MODULE__, :machine}, machine) == machine do
      {:ok, name, domid}
    else
      false -> {:error, ~c"it is on another machine, by its name"}
      _other -> {:error, ~c"a node that tubes lead to is named name@dom<N>"}
    end
  end

  defp own_place(host) do
    with :error <- place(to_string(host)) do
      {:error,
       ~c"the host part of the node's name is ~ts, it must be dom<N> with the number of this domain: -sname name@dom5"
       |> :io_lib.format([host])
       |> :lists.flatten()}
    end
  end

  defp place("dom" <> rest) do
    {digits, machine} =
      case String.split(rest, ".", parts: 2) do
        [digits] -> {digits, ""}
        [digits, machine] -> {digits, machine}
      end

    # As written by us: one name for each domain.
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
    do: {:error, ~c"the part of the node's name before the @ has more than 59 bytes"}

  # net_kernel asks the last carrier first, and inet_tcp's says yes to whatever name epmd knows.
  defp order({:ok, [carriers]}) do
    if List.last(carriers) == ~c"tube",
      do: :ok,
      else: {:error, ~c"tube must be the last of several carriers: -proto_dist inet_tcp tube"}
  end

  defp order(_other), do: :ok

  defp explained({:error, reason}), do: {:error, to_charlist(Error.message(reason))}
  defp explained(fine), do: fine
end
