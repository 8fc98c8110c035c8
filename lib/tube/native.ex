defmodule Tube.Native do
  @moduledoc false
  # The only module that knows priv/native/tube.so: the stubs of its NIF, and the few calls that go to
  # its linked-in driver. Both halves live in one library. They find each other by an id (slab index
  # and generation in one integer), never by a pointer, and refuse each other unless they come from
  # one loaded image (`build_id/0`).
  #
  # Nothing here decides anything: arguments are checked by Tube and Tube.Connection, the rules of a
  # link are in native/link.

  @on_load :load
  @compile {:autoload, false}

  @typedoc "An attached platform: this VM's domain for as long as it is not detached."
  @type platform :: reference

  @typedoc "A link or a stream. Never reused: an id of something freed gives `{:error, :closed}`."
  @type id :: non_neg_integer

  @typedoc "Bytes of a message that are already in the ring. Opaque, except that 0 means none."
  @type cont :: non_neg_integer

  @typedoc """
  How the owner hears of messages: `{:tube, tube, binary}` or a port's `{pid, {:data, binary}}`. With `:dist`
  not at all: the port is a distribution controller, and takes what is written to it and no `send/2`.
  """
  @type mode :: :tube | :port | :dist

  @typedoc "-1 always, 0 never, -2 the next message only, n the next n messages."
  @type active :: -2..0x7FFFFFFF

  @typedoc "What the tip tells the nock through xenstore."
  @type refs :: %{
          tx_ring_ref: non_neg_integer,
          rx_ring_ref: non_neg_integer,
          event_channel: non_neg_integer,
          order_tx: 0..8,
          order_rx: 0..8
        }

  # Operations of port_control/3, as in native/tube/src/driver/link.rs. The high bits are there so that
  # a port of another driver does not take them for its own.
  @op_start 0x54550001
  @op_active 0x54550002
  @op_dist_input 0x54550004
  @op_dist_tick 0x54550005
  @op_cut 0x54550006
  @op_deliver 0x54550007

  ## The library

  @doc "Loads the NIF. Runs by itself when this module is loaded."
  @spec load :: :ok | {:error, term}
  def load, do: :erlang.load_nif(:filename.join(directory(), ~c"tube"), 0)

  @doc """
  Loads the driver of the same library. To be called before a port is opened; calling it again does
  no harm. The first port locks the driver in memory, so that it outlives the process that called this.
  """
  @spec driver :: :ok | {:error, term}
  def driver do
    case :erl_ddll.load(directory(), ~c"tube") do
      :ok -> :ok
      {:error, :permanent} -> :ok
      {:error, reason} -> {:error, reason}
    end
  end

  @doc "Names the loaded image. A port opened with another's name is refused."
  @spec build_id :: String.t()
  def build_id, do: :erlang.nif_error(:not_loaded)

  ## Platform

  @doc """
  Attaches this VM to the platform's run directory as `domid`, or as the lowest free one for -1. One
  attempt: a hub that is not there is `{:error, {:enoent | :econnrefused, text}}`.

  With `:xen` the VM is of the Xen domain that it runs in; the run directory is not looked at, and
  another domid than that domain's own is `:einval`.
  """
  @spec attach(:local | :xen, binary, -1 | Tube.Paths.domid()) ::
          {:ok, platform, Tube.Paths.domid()} | {:error, {atom, binary}}
  def attach(_kind, _run_directory, _domid), do: :erlang.nif_error(:not_loaded)

  @doc "What this machine lacks to be a Xen domain with tubes, each with its cure; nothing lacking: `[]`."
  @spec xen_missing :: [{atom, binary}]
  def xen_missing, do: :erlang.nif_error(:not_loaded)

  @doc "Ends the domain's life. Open links go on; nothing new can be made with `platform`."
  @spec detach(platform) :: :ok
  def detach(_platform), do: :erlang.nif_error(:not_loaded)

  @doc "A new connection to the store, as a stream for `stream_port/1`."
  @spec xenbus(platform) :: {:ok, id} | {:error, atom}
  def xenbus(_platform), do: :erlang.nif_error(:not_loaded)

  @doc "A stream whose end of file says that the hypervisor (the hub) has gone."
  @spec life(platform) :: {:ok, id} | {:error, atom}
  def life(_platform), do: :erlang.nif_error(:not_loaded)

  @doc """
  Opens the port of a stream. The caller becomes its owner and gets `{port, {:data, binary}}`, and
  `{:EXIT, port, reason}` when the stream ends (`:normal` at end of file).
  """
  @spec stream_port(id) :: port
  def stream_port(id), do: open_port("stream", id)

  @doc "Drops a stream that no port was opened for."
  @spec stream_free(id) :: :ok
  def stream_free(_id), do: :erlang.nif_error(:not_loaded)

  ## Making a link

  @doc """
  The tip's half: shares the pages of both rings with `peer` and makes an unbound event channel. When
  the platform has no room, each order goes down by halves; the map says what came of it.
  """
  @spec link_share(platform, Tube.Paths.domid(), 0..8, 0..8, non_neg_integer, pos_integer) ::
          {:ok, id, refs} | {:error, atom}
  def link_share(_platform, _peer, _order_tx, _order_rx, _nonce, _max_message),
    do: :erlang.nif_error(:not_loaded)

  @doc """
  The nock's half: maps what the tip shares, checks it against `nonce`, binds the event channel. The
  refs are named as the tip writes them: `tx` is what the tip sends.
  """
  @spec link_map(
          platform,
          Tube.Paths.domid(),
          non_neg_integer,
          non_neg_integer,
          non_neg_integer,
          non_neg_integer,
          pos_integer
        ) :: {:ok, id} | {:error, atom}
  def link_map(_platform, _peer, _tx_ref, _rx_ref, _evtchn, _nonce, _max_message),
    do: :erlang.nif_error(:not_loaded)

  @doc "Drops a link that no port was opened for."
  @spec link_free(id) :: :ok
  def link_free(_id), do: :erlang.nif_error(:not_loaded)

  @doc """
  Opens the port of a link. The caller, the connection process, becomes its owner. Closing the port
  frees the link: pages, event channel and id.
  """
  @spec link_port(id) :: port
  def link_port(id), do: open_port("link", id)

  @doc """
  Starts the flow of data. `connection` must be the owner of `port`; it gets each of these at most
  once, `:drained` after `:fin` or `:gone`:

    * `{:"$tube", id, :fin}`: the peer has finished writing
    * `{:"$tube", id, :drained}`: and the owner has taken all that it wrote
    * `{:"$tube", id, :gone}`: the peer's end has gone
    * `{:"$tube", id, :protocol}`: the peer wrote something impossible
    * `{:"$tube", id, :owner_told}`: the owner knows that nothing more will come
  """
  @spec link_start(id, port, pid, pid, mode) :: :ok | {:error, atom}
  def link_start(id, port, connection, owner, mode) do
    with :ok <- link_bind(id, port, connection, owner, mode),
         do: control(port, @op_start, <<>>)
  end

  @doc false
  @spec link_bind(id, port, pid, pid, mode) :: :ok | {:error, atom}
  def link_bind(_id, _port, _connection, _owner, _form), do: :erlang.nif_error(:not_loaded)

  @doc "Hands the receiving side to another process. A wait of the old owner is forgotten."
  @spec link_owner(id, pid) :: :ok | {:error, :closed}
  def link_owner(_id, _owner), do: :erlang.nif_error(:not_loaded)

  ## Data

  @doc """
  Puts a message into the ring, at most 256 KiB of it per call.

    * `:ok`: all of it is there
    * `{:more, cont}`: call `send/3` again at once
    * `{:wait, cont}`: the ring is full, or another sender's long message is under way. The caller gets
      `{:"$tube_space", id}` once, when it is worth calling `send/3` again
    * `{:error, reason}`: `:closed`, `:peer_down`, `:protocol`, `:emsgsize`, `:einval` (a `cont` that is
      not the caller's), `:distribution` (a link of mode `:dist`)
  """
  @spec send(id, binary) :: :ok | {:more | :wait, cont} | {:error, atom}
  def send(_id, _message), do: :erlang.nif_error(:not_loaded)

  @doc "Goes on with the same message. See `send/2`."
  @spec send(id, binary, cont) :: :ok | {:more | :wait, cont} | {:error, atom}
  def send(_id, _message, _cont), do: :erlang.nif_error(:not_loaded)

  @doc """
  Puts the binaries of a list into the ring, each a message, at most 1024 and little more than 256 KiB per call.

    * `:ok`: all of them are there
    * `{:more, rest, cont}`, `{:wait, rest, cont}`, `{:error, reason, rest}`: those before `rest` are there. Of the
      first of `rest` the answer says what `send/2` would say; `{:more, rest, 0}` also that this was enough for
      one call
  """
  @spec send_many(id, [binary]) ::
          :ok | {:more | :wait, [binary, ...], cont} | {:error, atom, [binary]}
  def send_many(_id, _messages), do: :erlang.nif_error(:not_loaded)

  @doc """
  Gives up a message: the caller waits no longer, and what the peer has of the message it throws away.
  A `{:"$tube_space", id}` may already be in the mailbox. A sender that dies is cancelled like this.
  """
  @spec send_cancel(id, cont) :: :ok
  def send_cancel(_id, _cont), do: :erlang.nif_error(:not_loaded)

  @doc """
  Takes the next message, for the owner, when not active.

    * `:more`: part of a long message was taken, call again
    * `:poll`: nothing there, and the link is polled: yield and call again
    * `:wait`: nothing there. The owner gets `{:"$tube_data", id}` once, when there is
    * `{:error, reason}`: `:closed` (the peer finished, all taken), `:peer_down`, `:protocol`,
      `:not_owner`, `:einval` (active), `:enomem` (no room for the message, which is kept)
  """
  @spec recv(id) :: {:ok, binary} | :more | :poll | :wait | {:error, atom}
  def recv(_id), do: :erlang.nif_error(:not_loaded)

  @doc """
  Takes the messages that are there, `most` (1024 at most) of them and 256 KiB or little more, in order. For
  the owner, when not active. Other answers as of `recv/1`.

  Messages of more than 64 bytes and up to 4 KiB may be parts of one binary of up to 32 KiB.
  """
  @spec recv_many(id, pos_integer) ::
          {:ok, [binary, ...]} | :more | :poll | :wait | {:error, atom}
  def recv_many(_id, _most), do: :erlang.nif_error(:not_loaded)

  @doc "The caller waits no longer. A `{:\"$tube_data\", id}` may already be in the mailbox."
  @spec recv_cancel(id) :: :ok
  def recv_cancel(_id), do: :erlang.nif_error(:not_loaded)

  @doc """
  Sets for how many microseconds the link is polled at most before it asks for a bell; 0 switches that
  off. What a wait for data then costs and gains is judged each time: see native/link/src/poll.rs.

  A passive owner polls by itself: `recv/1` says `:poll`. For an active one, or for a distribution
  controller, somebody has to: see `poll/1` and `Tube.Connection.BusyPoller`.
  """
  @spec link_poll(id, 0..0xFFFFFFFF) :: :ok | {:error, :closed}
  def link_poll(_id, _microseconds), do: :erlang.nif_error(:not_loaded)

  @doc """
  A look at a polled link on behalf of an active owner or of the VM, by one process at a time.

    * `:ready`: there is something, call `deliver/1`
    * `:poll`: nothing there: yield and call again
    * `:wait`: nothing there, or nobody wants it. The caller gets `{:"$tube_data", id}` once, when the bell
      has brought something, or when the link is closed
    * `{:error, :closed}`

  After `:poll` the link has no bell: whoever stops calling must see to it that
  `link_poll(id, 0)` and then `deliver/1` are called, which asks for one again.
  """
  @spec poll(id) :: :ready | :poll | :wait | {:error, :closed}
  def poll(_id), do: :erlang.nif_error(:not_loaded)

  @doc "Delivers what there is, in whatever way the port delivers. For anybody; see `poll/1`."
  @spec deliver(port) :: :ok | {:error, :closed}
  def deliver(port), do: control(port, @op_deliver, <<>>)

  @doc """
  Sets when messages are delivered unasked; for the owner and the connection process. A count is added to what is
  left of an earlier count.

  The owner gets messages in its mode; in mode `:tube` also `{:tube_passive, tube}` when a count is
  used up and, when the peer has finished or gone and all is delivered, `{:tube_closed, tube}`, after
  `{:tube_error, tube, reason}` if it was not a clean end. These wait until the owner is active.
  """
  @spec active(port, active) :: :ok | {:error, :not_owner | :closed | :einval}
  def active(port, active), do: control(port, @op_active, <<active::signed-little-32>>)

  @doc """
  Lets the port of a link of mode `:dist` hand the peer's packets to the VM, and lifts the limit on their
  length, which is 64 KiB until then. For the owner, once the VM knows the port (`:erlang.setnode/3`).
  When the link ends after that, the port exits with reason `:connection_closed`.
  """
  @spec dist_input(port) :: :ok | {:error, :not_owner | :closed | :einval}
  def dist_input(port), do: control(port, @op_dist_input, <<>>)

  @doc "Sends an empty packet through such a port, unless others wait to be sent."
  @spec dist_tick(port) :: :ok | {:error, :closed | :einval}
  def dist_tick(port), do: control(port, @op_dist_tick, <<>>)

  @doc """
  Lets go of the rings at once, for the connection process, once data flows: when this returns nothing of
  the peer's is mapped here, and what had arrived is in a copy. The owner gets that, and then `reason`,
  unless the peer had finished before, or had gone for another.
  """
  @spec cut(port, :peer_down | :peer_domain_gone | :suspended) ::
          :ok | {:error, :closed | :einval}
  def cut(port, :peer_down), do: control(port, @op_cut, <<0>>)
  def cut(port, :peer_domain_gone), do: control(port, @op_cut, <<1>>)
  def cut(port, :suspended), do: control(port, @op_cut, <<2>>)

  @doc "Says that `cut/2` or an end by the peer will come because of a suspension, which the owner then learns."
  @spec suspend(port) :: :ok | {:error, :closed | :einval}
  def suspend(port), do: control(port, @op_cut, <<3>>)

  @doc """
  Says that no more will be sent. Senders that wait with nothing in the ring get `:closed`; a long
  message under way may be finished, and the peer sees the end after it.
  """
  @spec shutdown(id) :: :ok | {:error, :closed}
  def shutdown(_id), do: :erlang.nif_error(:not_loaded)

  ## To look at

  @doc "What a link has done so far."
  @spec info(id) :: {:ok, map} | {:error, :closed}
  def info(_id), do: :erlang.nif_error(:not_loaded)

  @doc "What is alive in this VM: `links`, `streams`, `pages` (of 4096 bytes), `fds`: event channels and
  streams that are open."
  @spec live_counts :: %{
          links: non_neg_integer,
          streams: non_neg_integer,
          pages: non_neg_integer,
          fds: non_neg_integer
        }
  def live_counts, do: :erlang.nif_error(:not_loaded)

  # One path for NIF and driver: the dynamic linker then gives both the same image. Code paths are all
  # that this needs, so it also works when distribution starts, before any application is loaded.
  defp directory, do: :filename.join(:code.priv_dir(:tube), ~c"native")

  defp open_port(kind, id) do
    Port.open({:spawn_driver, ~c"tube #{kind} #{id} #{build_id()}"}, [:binary])
  end

  # The answer of the driver is the name of an atom, "ok" or a reason. A port that is closed, or that is
  # none of ours, raises.
  defp control(port, operation, data) do
    case :erlang.port_control(port, operation, data) do
      ~c"ok" -> :ok
      reason -> {:error, List.to_existing_atom(reason)}
    end
  rescue
    ArgumentError -> {:error, :closed}
  end
end
