defmodule Tube.Native do
  @moduledoc false
  # Loads the NIF of priv/native/tube.so, and holds its stubs. The driver in the same library is
  # `Tube.Native.Driver`. NIF and driver find each other's data by id (slab index and generation in
  # one integer), never by a pointer, and only work together if they come from one loaded copy of
  # the library (`build_id/0`).
  #
  # Nothing is decided here: Tube and Tube.Connection check arguments, and native/link has the rules
  # of a link.

  @on_load :load
  @compile {:autoload, false}

  @typedoc "An attached platform: this VM's domain, until it is detached."
  @type platform :: reference

  @typedoc "A link or a stream. Never reused: the id of something freed gives `{:error, :closed}`."
  @type id :: non_neg_integer

  @typedoc "Bytes of a message that are already in the ring. Opaque, except that 0 means none."
  @type cont :: non_neg_integer

  @typedoc """
  How an active owner gets messages: `{:tube, tube, binary}` or a port's `{pid, {:data, binary}}`.
  In mode `:dist` it gets none: the port is a distribution controller, and packets are written to
  the port, not sent with `send/2`.
  """
  @type mode :: :tube | :port | :dist

  @typedoc "What the tip tells the nock through xenstore."
  @type refs :: %{
          tx_ring_ref: non_neg_integer,
          rx_ring_ref: non_neg_integer,
          event_channel: non_neg_integer,
          order_tx: 0..8,
          order_rx: 0..8
        }

  ## Loading

  @doc "Loads the NIF. Runs by itself when this module is loaded."
  @spec load :: :ok | {:error, term}
  def load, do: :erlang.load_nif(:filename.join(directory(), ~c"tube"), 0)

  # NIF and driver are loaded from one path, so that the dynamic linker maps one copy for both. This
  # needs code paths only: it works when distribution starts, before any application is loaded.
  @doc "The directory that the library is loaded from."
  @spec directory :: charlist
  def directory, do: :filename.join(:code.priv_dir(:tube), ~c"native")

  @doc "Identifies the loaded copy of the library. The driver refuses ports with another id."
  @spec build_id :: String.t()
  def build_id, do: :erlang.nif_error(:not_loaded)

  ## Platform

  @doc """
  Attaches this VM to the platform's run directory as `domid`, or as the lowest free domid for -1.
  It tries once: without a hub it returns `{:error, {:enoent | :econnrefused, text}}`.

  With `:xen` the VM belongs to the Xen domain that it runs in. The run directory is ignored, and
  any other domid than that domain's own is `:einval`.
  """
  @spec attach(:local | :xen, binary, -1 | Tube.Paths.domid()) ::
          {:ok, platform, Tube.Paths.domid()} | {:error, {atom, binary}}
  def attach(_kind, _run_directory, _domid), do: :erlang.nif_error(:not_loaded)

  @doc "What this machine lacks to be a Xen domain with tubes, each with its cure; `[]` if nothing."
  @spec xen_missing :: [{atom, binary}]
  def xen_missing, do: :erlang.nif_error(:not_loaded)

  @doc "Ends the domain. Open links stay open, but you can make no new ones with `platform`."
  @spec detach(platform) :: :ok
  def detach(_platform), do: :erlang.nif_error(:not_loaded)

  @doc "A new connection to the store, as a stream for `Tube.Native.Driver.open_stream/1`."
  @spec xenbus(platform) :: {:ok, id} | {:error, atom}
  def xenbus(_platform), do: :erlang.nif_error(:not_loaded)

  @doc "A stream that reaches end of file when the hypervisor (the hub) has gone."
  @spec life(platform) :: {:ok, id} | {:error, atom}
  def life(_platform), do: :erlang.nif_error(:not_loaded)

  @doc "Drops a stream that has no port."
  @spec stream_free(id) :: :ok
  def stream_free(_id), do: :erlang.nif_error(:not_loaded)

  ## Making a link

  @doc """
  The tip's half: shares the pages of both rings with `peer` and makes an unbound event channel.
  When the platform has no room, sizes are halved until they fit; the map returns them.
  """
  @spec link_share(platform, Tube.Paths.domid(), 0..8, 0..8, non_neg_integer, pos_integer) ::
          {:ok, id, refs} | {:error, atom}
  def link_share(_platform, _peer, _order_tx, _order_rx, _nonce, _max_message),
    do: :erlang.nif_error(:not_loaded)

  @doc """
  The nock's half: maps what the tip shares, checks it against `nonce`, binds the event channel. The
  refs are named as the tip writes them: `tx` is the ring that the tip sends through.
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

  @doc "Drops a link that has no port."
  @spec link_free(id) :: :ok
  def link_free(_id), do: :erlang.nif_error(:not_loaded)

  @doc "Sets the processes and the mode of a link, once, for `Tube.Native.Driver.start/5`."
  @spec link_bind(id, pid, pid, mode) :: :ok | {:error, atom}
  def link_bind(_id, _connection, _owner, _mode), do: :erlang.nif_error(:not_loaded)

  @doc "Hands the receiving side to another process. If the old owner waits, its wait is dropped."
  @spec link_owner(id, pid) :: :ok | {:error, :closed}
  def link_owner(_id, _owner), do: :erlang.nif_error(:not_loaded)

  ## Data

  @doc """
  Puts a message into the ring, at most 256 KiB of it per call.

    * `:ok`: the whole message is in the ring
    * `{:more, cont}`: call `send/3` again at once
    * `{:wait, cont}`: the ring is full, or another sender's long message is not finished. The
      caller gets `{:"$tube_space", id}` once, when `send/3` may succeed
    * `{:error, reason}`: `:closed`, `:peer_down`, `:protocol`, `:emsgsize`, `:einval` (a `cont`
      that is not the caller's), `:distribution` (a link in mode `:dist`)
  """
  @spec send(id, binary) :: :ok | {:more | :wait, cont} | {:error, atom}
  def send(_id, _message), do: :erlang.nif_error(:not_loaded)

  @doc "Continues the same message. See `send/2`."
  @spec send(id, binary, cont) :: :ok | {:more | :wait, cont} | {:error, atom}
  def send(_id, _message, _cont), do: :erlang.nif_error(:not_loaded)

  @doc """
  Puts the binaries of a list into the ring, each as a message: at most 1024, and little more than
  256 KiB, per call.

    * `:ok`: all of them are in the ring
    * `{:more, rest, cont}`, `{:wait, rest, cont}`, `{:error, reason, rest}`: the messages before
      `rest` are in the ring. The result is that of `send/2` for the first of `rest`.
      `{:more, rest, 0}` may also mean that this call has done its share
  """
  @spec send_many(id, [binary]) ::
          :ok | {:more | :wait, [binary, ...], cont} | {:error, atom, [binary]}
  def send_many(_id, _messages), do: :erlang.nif_error(:not_loaded)

  @doc """
  Gives up the caller's message: the caller no longer waits, and the peer discards what it has of
  the message. A `{:"$tube_space", id}` may already be in the mailbox. When a sender dies, its
  message is cancelled in the same way.
  """
  @spec send_cancel(id) :: :ok
  def send_cancel(_id), do: :erlang.nif_error(:not_loaded)

  @doc """
  Takes the next message, for an owner that is not active.

    * `:more`: part of a long message was taken; call again
    * `:poll`: nothing has arrived, and the link is being polled: yield and call again
    * `:wait`: nothing has arrived. The owner gets `{:"$tube_data", id}` once, when something has
    * `{:error, reason}`: `:closed` (the peer finished and everything is taken), `:peer_down`,
      `:protocol`, `:not_owner`, `:einval` (active), `:enomem` (no memory for the message, which
      stays in the ring)
  """
  @spec recv(id) :: {:ok, binary} | :more | :poll | :wait | {:error, atom}
  def recv(_id), do: :erlang.nif_error(:not_loaded)

  @doc """
  Takes the messages that have arrived, in order: at most `most` (and 1024) of them, and 256 KiB or
  little more. For an owner that is not active. Other results are those of `recv/1`.

  Messages of more than 64 bytes and up to 4 KiB may be parts of one binary of up to 32 KiB.
  """
  @spec recv_many(id, pos_integer) ::
          {:ok, [binary, ...]} | :more | :poll | :wait | {:error, atom}
  def recv_many(_id, _most), do: :erlang.nif_error(:not_loaded)

  @doc "Ends the caller's wait. A `{:\"$tube_data\", id}` may already be in the mailbox."
  @spec recv_cancel(id) :: :ok
  def recv_cancel(_id), do: :erlang.nif_error(:not_loaded)

  @doc """
  Sets for how many microseconds at most the link is polled before it asks for a notification; 0
  switches polling off. Each wait is judged by what polling cost and gained: see native/link.

  A passive owner polls by itself: `recv/1` returns `:poll`. For an active owner, or for a
  distribution controller, another process has to: see `poll/1` and `Tube.Connection.BusyPoller`.
  """
  @spec link_poll(id, 0..0xFFFFFFFF) :: :ok | {:error, :closed}
  def link_poll(_id, _microseconds), do: :erlang.nif_error(:not_loaded)

  @doc """
  Polls a link for an active owner or for the VM. One process at a time may do this.

    * `:ready`: something has arrived; call `Tube.Native.Driver.deliver/1`
    * `:poll`: nothing has arrived: yield and call again
    * `:wait`: nothing has arrived, or the owner is not active. The caller gets
      `{:"$tube_data", id}` once, after a notification has brought something, or when the link is
      closed
    * `{:error, :closed}`

  After `:poll` the link asks for no notification. If you stop calling, make sure that
  `link_poll(id, 0)` and then `Tube.Native.Driver.deliver/1` are called, which asks for one again.
  """
  @spec poll(id) :: :ready | :poll | :wait | {:error, :closed}
  def poll(_id), do: :erlang.nif_error(:not_loaded)

  @doc """
  Announces that no more will be sent. Waiting senders with nothing in the ring get `:closed`. A
  long message that has begun may be finished; the peer sees the end after it.
  """
  @spec shutdown(id) :: :ok | {:error, :closed}
  def shutdown(_id), do: :erlang.nif_error(:not_loaded)

  ## Introspection

  @doc "The counters of a link."
  @spec info(id) :: {:ok, map} | {:error, :closed}
  def info(_id), do: :erlang.nif_error(:not_loaded)

  @doc """
  Counts the native objects of this VM: `links`, `streams`, `pages` (of 4096 bytes), and `fds`: open
  event channels and streams.
  """
  @spec live_counts :: %{
          links: non_neg_integer,
          streams: non_neg_integer,
          pages: non_neg_integer,
          fds: non_neg_integer
        }
  def live_counts, do: :erlang.nif_error(:not_loaded)
end
