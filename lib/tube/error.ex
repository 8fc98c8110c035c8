defmodule Tube.Error do
  @moduledoc """
  The reasons why calls on tubes fail, and a sentence for each.

  Functions of `Tube` return `{:error, reason}`. A reason is a posix atom if it comes from the
  operating system or the store, and one of `t:own/0` otherwise.

      iex> Tube.Error.message(:timeout)
      "timed out"
      iex> Tube.Error.message(:eacces)
      "permission denied (eacces)"
  """

  @own [
    busy: "the ring is full, or the peer accepts no more tubes now",
    closed: "the tube is closed",
    distribution: "the tube carries distributed Erlang, so only the VM may send through it",
    protocol: "the peer broke the protocol, so the tube was closed",
    peer_down: "the peer's VM ended",
    peer_domain_gone: "the peer's domain was destroyed",
    not_owner: "only the owner of the tube may do this",
    refused: "the peer refused the tube",
    suspended: "tubes are suspended until Tube.resume/0 is called",
    store_lost: "the connection to xenstore was lost",
    timeout: "timed out",
    version: "the peer uses another version of the protocol",
    no_hub: "no tube-hub is running and none could be started",
    hub_version: "the running tube-hub uses another version of its protocol",
    domid_taken: "another VM is this domain already",
    bad_run_dir: "the run directory cannot be used",
    no_xenbus: "/dev/xen/xenbus does not exist",
    no_gntalloc: "/dev/xen/gntalloc does not exist",
    no_gntdev: "/dev/xen/gntdev does not exist",
    no_evtchn: "/dev/xen/evtchn does not exist",
    no_libxengnttab: "the library libxengnttab.so.1 is not installed",
    no_libxenevtchn: "the library libxenevtchn.so.1 is not installed",
    emsgsize: "the message is larger than max_message"
  ]

  @posix [
    eacces: "permission denied",
    eexist: "a tube of this number is already open",
    einval: "not possible in this mode or with this value",
    enomem: "out of memory",
    enospc: "no grants or store nodes left",
    enoent: "no such domain or node",
    emfile: "too many open files"
  ]

  @typedoc "The reasons that this library defines."
  @type own ::
          :busy
          | :closed
          | :distribution
          | :protocol
          | :peer_down
          | :peer_domain_gone
          | :not_owner
          | :refused
          | :suspended
          | :store_lost
          | :timeout
          | :version
          | :no_hub
          | :hub_version
          | :domid_taken
          | :bad_run_dir
          | :no_xenbus
          | :no_gntalloc
          | :no_gntdev
          | :no_evtchn
          | :no_libxengnttab
          | :no_libxenevtchn
          | :emsgsize

  @typedoc "A reason, or a reason with a sentence that gives the details."
  @type reason :: own | :file.posix() | {own | :file.posix(), String.t()}

  @doc """
  Returns a sentence, without a full stop, for `reason`. Any other term is inspected.

      iex> Tube.Error.message(:peer_down)
      "the peer's VM ended"
      iex> Tube.Error.message({:domid_taken, "domain 5 is already taken"})
      "domain 5 is already taken"
  """
  @spec message(reason | term) :: String.t()
  def message({reason, text}) when is_atom(reason) and is_binary(text), do: text

  for {reason, text} <- @own do
    def message(unquote(reason)), do: unquote(text)
  end

  for {reason, text} <- @posix do
    def message(unquote(reason)), do: unquote("#{text} (#{reason})")
  end

  def message(reason) when is_atom(reason), do: to_string(:file.format_error(reason))
  def message(reason), do: inspect(reason)
end
