defmodule Tube.Domain.ExclusiveClaim do
  @moduledoc false
  # That this VM is its Xen domain's only one with tubes, as the hub sees to it on the local platform.
  #
  # Xen knows domains, not processes: nothing of a VM that was killed goes from the store with it, and
  # its successor can neither take its services nor reuse its numbers unless it knows that the VM is
  # dead. So a VM holds a unix socket of a fixed abstract name. The kernel gives the name to one
  # process, takes it back at its death, however it comes, and leaves no file behind. (Abstract names
  # are of a network namespace. Containers of one domain with tubes of their own belong on the local
  # platform; two of them on Xen would each take the other for dead.)

  @name <<0, "tube/xen-domain">>

  @type t :: port()

  @doc "Takes it; the calling process holds it for as long as it lives. A second VM is refused."
  @spec take() :: {:ok, t} | {:error, {atom, String.t()}}
  def take do
    case :gen_tcp.listen(0, [:local, ifaddr: {:local, @name}, active: false, backlog: 1]) do
      {:ok, claim} ->
        {:ok, claim}

      {:error, :eaddrinuse} ->
        {:error, {:domid_taken, "another VM of this Xen domain has tubes; there can be one"}}

      {:error, reason} ->
        {:error, {reason, "claiming this Xen domain: #{:file.format_error(reason)}"}}
    end
  end
end
