defmodule Tube.Domain.ExclusiveClaim do
  @moduledoc false
  # Ensures that this VM is the only one of its Xen domain with tubes. On the local platform the hub
  # ensures it.
  #
  # Xen knows domains, not processes: the nodes of a killed VM stay in the store, and its successor
  # can neither take over its services nor reuse its numbers unless it knows that the VM is dead. So
  # a VM binds a unix socket to a fixed abstract name. The kernel gives the name to one process,
  # frees it when that process dies for any reason, and leaves no file behind. (Abstract names
  # belong to a network namespace. Containers of one domain that have their own tubes belong on the
  # local platform; two of them on Xen would each take the other for dead.)

  @name <<0, "tube/xen-domain">>

  @type t :: port()

  @doc "Takes the claim. The calling process holds it while it lives; a second VM is refused."
  @spec take() :: {:ok, t} | {:error, {atom, String.t()}}
  def take do
    case :gen_tcp.listen(0, [:local, ifaddr: {:local, @name}, active: false, backlog: 1]) do
      {:ok, claim} ->
        {:ok, claim}

      {:error, :eaddrinuse} ->
        {:error, {:domid_taken, "another VM of this Xen domain has tubes; only one may"}}

      {:error, reason} ->
        {:error, {reason, "claiming this Xen domain: #{:file.format_error(reason)}"}}
    end
  end
end
