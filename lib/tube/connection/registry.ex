defmodule Tube.Connection.Registry do
  @moduledoc false
  # What anyone may know of a connected tube without asking its process, so without waiting: a record
  # per tube, from its connection to its end, in the process `Tube.Registry`. Also the numbers (tid)
  # that nocks have taken.

  alias Tube.Native

  @typedoc """
  `:dropped` counts messages that `on_full: :drop` dropped; `:span` is the metadata of telemetry events.
  """
  @type record :: %{
          tube: Tube.t(),
          send_timeout: timeout,
          dropped: :counters.counters_ref() | nil,
          role: :nock | :tip,
          me: Tube.domid(),
          peer: Tube.domid(),
          tid: 0..0xFFFFFFFF,
          service: String.t(),
          mode: Native.mode(),
          span: map
        }

  @doc "The child of the library's supervisor."
  @spec child_spec(term) :: Supervisor.child_spec()
  def child_spec(_), do: Registry.child_spec(keys: :unique, name: Tube.Registry)

  @doc "Adds the record of a tube that the calling process holds."
  @spec register(record) :: :ok
  def register(%{tube: tube} = record) do
    {:ok, _registry} = Registry.register(Tube.Registry, {:tube, tube.id}, record)
    :ok
  end

  @doc "Changes the send limit of a tube that the calling process holds."
  @spec set_send_timeout(non_neg_integer, timeout) :: :ok
  def set_send_timeout(id, limit) do
    Registry.update_value(Tube.Registry, {:tube, id}, &%{&1 | send_timeout: limit})
    :ok
  end

  @doc """
  Takes `tid`, or the lowest number that no tube of this VM to `peer` has, for the calling process.

  Other VMs of the same Xen domain see each other's directories in the store; on the local platform
  there are none.
  """
  @spec claim_tid(Tube.domid(), Tube.Paths.tid() | nil) ::
          {:ok, Tube.Paths.tid()} | {:error, :eexist | :busy}
  def claim_tid(peer, nil) do
    Enum.find_value(0..0xFFFF, {:error, :busy}, fn tid ->
      case claim_tid(peer, tid) do
        {:ok, tid} -> {:ok, tid}
        {:error, :eexist} -> nil
      end
    end)
  end

  def claim_tid(peer, tid) do
    case Registry.register(Tube.Registry, {:nock, peer, tid}, nil) do
      {:ok, _registry} -> {:ok, tid}
      {:error, {:already_registered, _pid}} -> {:error, :eexist}
    end
  end

  @doc """
  Removes everything that the calling process has registered.

  A `Registry` removes the keys of a process some time after its end. A caller that learns of a tube's
  end must find it nowhere, and its number free, so the process removes them itself first.
  """
  @spec unregister() :: :ok
  def unregister do
    for key <- Registry.keys(Tube.Registry, self()), do: Registry.unregister(Tube.Registry, key)
    :ok
  end

  @doc "The record of one tube."
  @spec lookup(non_neg_integer) :: {:ok, record} | {:error, :closed}
  def lookup(id) do
    case Registry.lookup(Tube.Registry, {:tube, id}) do
      [{_pid, record}] -> {:ok, record}
      [] -> {:error, :closed}
    end
  end

  @doc "The records of all connected tubes of this VM."
  @spec records() :: [record]
  def records, do: Registry.select(Tube.Registry, [{{{:tube, :_}, :_, :"$1"}, [], [:"$1"]}])

  @doc "The send limit of a tube. Only senders that have to wait ask."
  @spec send_timeout(non_neg_integer) :: timeout
  def send_timeout(id) do
    case lookup(id) do
      {:ok, %{send_timeout: limit}} -> limit
      {:error, :closed} -> :infinity
    end
  end

  @doc "The counters of a tube, as `Tube.getstat/1` returns them."
  @spec counters(non_neg_integer) :: {:ok, [{atom, non_neg_integer}]} | {:error, :closed}
  def counters(id) do
    with {:ok, %{dropped: dropped}} <- lookup(id), {:ok, %{rx: rx, tx: tx}} <- Native.info(id) do
      {:ok,
       [
         recv_cnt: rx.messages,
         recv_oct: rx.bytes,
         recv_max: rx.largest,
         recv_pend: rx.backlog,
         empty_waits: rx.waits,
         send_cnt: tx.messages,
         send_oct: tx.bytes,
         send_max: tx.largest,
         send_pend: tx.backlog,
         send_dropped: count(dropped),
         full_waits: tx.waits,
         bells: rx.bells + tx.bells,
         bells_spared: rx.bells_spared + tx.bells_spared
       ]}
    end
  end

  defp count(nil), do: 0
  defp count(counter), do: :counters.get(counter, 1)
end
