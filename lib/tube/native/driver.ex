defmodule Tube.Native.Driver do
  @moduledoc false
  # The linked-in driver of priv/native/tube.so: opens the ports of links and streams, and calls
  # the operations of a link's port. The NIF of the same library is `Tube.Native`.

  alias Tube.Native

  @typedoc "-1 always, 0 never, -2 the next message only, n the next n messages."
  @type active :: -2..0x7FFFFFFF

  # Operations of port_control/3, as in native/tube/src/driver/operation.rs. The high bits keep a
  # port of another driver from taking them for its own.
  @op_start 0x54550001
  @op_active 0x54550002
  @op_dist_input 0x54550004
  @op_dist_tick 0x54550005
  @op_cut 0x54550006
  @op_deliver 0x54550007

  ## Ports

  @doc """
  Loads the driver. Call this before you open a port; calling it again does no harm. The first
  port locks the driver in memory, so that it outlives the process that loaded it.
  """
  @spec load :: :ok | {:error, term}
  def load do
    case :erl_ddll.load(Native.directory(), ~c"tube") do
      :ok -> :ok
      {:error, :permanent} -> :ok
      {:error, reason} -> {:error, reason}
    end
  end

  @doc """
  Opens the port of a link. The caller, the connection process, becomes its owner. Closing the
  port frees the link: pages, event channel and id.
  """
  @spec open_link(Native.id()) :: port
  def open_link(id), do: open("link", id)

  @doc """
  Opens the port of a stream. The caller becomes its owner and gets `{port, {:data, binary}}`, and
  `{:EXIT, port, reason}` when the stream ends (`:normal` at end of file).
  """
  @spec open_stream(Native.id()) :: port
  def open_stream(id), do: open("stream", id)

  ## Operations of a link's port

  @doc """
  Starts the flow of data. `connection` must be the owner of `port`; it gets each of these at most
  once, `:drained` after `:fin` or `:gone`:

    * `{:"$tube", id, :fin}`: the peer has finished writing
    * `{:"$tube", id, :drained}`: the owner has taken everything that the peer wrote
    * `{:"$tube", id, :gone}`: the peer's end has gone
    * `{:"$tube", id, :protocol}`: the peer wrote something impossible
    * `{:"$tube", id, :owner_told}`: the owner knows that nothing more will come
  """
  @spec start(Native.id(), port, pid, pid, Native.mode()) :: :ok | {:error, atom}
  def start(id, port, connection, owner, mode) do
    with :ok <- Native.link_bind(id, connection, owner, mode),
         do: control(port, @op_start, <<>>)
  end

  @doc """
  Sets which messages are delivered without a call of `Tube.Native.recv/1`. The owner and the
  connection process may call this. A count is added to what is left of an earlier count.

  The owner gets messages in its mode. In mode `:tube` it also gets `{:tube_passive, tube}` when a
  count is used up and, when the peer has finished or gone and everything is delivered,
  `{:tube_closed, tube}`, after `{:tube_error, tube, reason}` if that was not a clean end. These
  wait until the owner is active.
  """
  @spec active(port, active) :: :ok | {:error, :not_owner | :closed | :einval}
  def active(port, active), do: control(port, @op_active, <<active::signed-little-32>>)

  @doc """
  Delivers what has arrived, in the mode of the port. Any process may call this; see
  `Tube.Native.poll/1`.
  """
  @spec deliver(port) :: :ok | {:error, :closed}
  def deliver(port), do: control(port, @op_deliver, <<>>)

  @doc """
  Lets the port of a link in mode `:dist` hand the peer's packets to the VM, and lifts the limit on
  their length, which is 64 KiB until then. The owner calls this once the VM knows the port
  (`:erlang.setnode/3`). When the link ends after that, the port exits with reason
  `:connection_closed`.
  """
  @spec dist_input(port) :: :ok | {:error, :not_owner | :closed | :einval}
  def dist_input(port), do: control(port, @op_dist_input, <<>>)

  @doc "Sends an empty packet through the port of a link in mode `:dist`, unless others are queued."
  @spec dist_tick(port) :: :ok | {:error, :closed | :einval}
  def dist_tick(port), do: control(port, @op_dist_tick, <<>>)

  @doc """
  Unmaps the pages of a started link at once; only the connection process may call this. When it
  returns, nothing of the peer's is mapped here, and data that had arrived is in a copy. The owner
  gets that data and then `reason`, unless the peer had finished before, or had already gone for
  another reason.
  """
  @spec cut(port, :peer_down | :peer_domain_gone | :suspended) ::
          :ok | {:error, :closed | :einval}
  def cut(port, :peer_down), do: control(port, @op_cut, <<0>>)
  def cut(port, :peer_domain_gone), do: control(port, @op_cut, <<1>>)
  def cut(port, :suspended), do: control(port, @op_cut, <<2>>)

  @doc """
  Announces that the machine is about to be suspended: if the link now ends, by `cut/2` or by the
  peer, the owner learns that this was the reason.
  """
  @spec suspend(port) :: :ok | {:error, :closed | :einval}
  def suspend(port), do: control(port, @op_cut, <<3>>)

  # The build id lets the driver refuse a port if the NIF comes from another copy of the library.
  defp open(kind, id) do
    Port.open({:spawn_driver, ~c"tube #{kind} #{id} #{Native.build_id()}"}, [:binary])
  end

  # The driver replies with the name of an atom: "ok" or a reason. A port that is closed, or that
  # belongs to another driver, raises.
  defp control(port, operation, data) do
    case :erlang.port_control(port, operation, data) do
      ~c"ok" -> :ok
      reason -> {:error, List.to_existing_atom(reason)}
    end
  rescue
    ArgumentError -> {:error, :closed}
  end
end
