defmodule Tube.Handshake.Directory do
  @moduledoc false
  # Requests for the directories that the tubes of a domain share: its service directory, its
  # inboxes, and their parents.

  alias Tube.{Handshake, Paths}
  alias Tube.Xenstore.Batch

  @version Integer.to_string(Handshake.version())

  @doc "Creates `data` of domain 0. The toolstack creates that of every other domain."
  @spec ensure_data(Paths.domid()) :: [Batch.step()]
  def ensure_data(0), do: [{:ensure, Paths.data(0), n: 0}]
  def ensure_data(_domid), do: []

  @doc "Creates the inbox of `me` for `peer`, which only these two may write, and its parents."
  @spec ensure_inbox(me :: Paths.domid(), peer :: Paths.domid()) :: [Batch.step()]
  def ensure_inbox(me, peer) do
    # The tip is listed twice: under C xenstored a node that the nock creates there belongs to the
    # nock, and inherits the rest of this list.
    perms = Enum.uniq([{:n, me}, {:b, me}, {:b, peer}])

    ensure_data(me) ++
      [{:ensure, Paths.tip_root(me), n: me}, {:ensure, Paths.inbox(me, peer), perms}]
  end

  @doc """
  Publishes `service` in the service directory of domain `me`, as served by `instance`.

  Send it once all watches for open requests are set. Fails with `:guard` if another instance
  serves it already, unless that one is in `dead`, the instances that are known to have ended.
  """
  @spec publish_service(Paths.domid(), service :: binary, instance :: binary, dead :: [binary]) ::
          Batch.request()
  def publish_service(me, service, instance, dead \\ []) do
    {:transaction,
     ensure_data(me) ++
       [
         {:guard, Paths.service(me, service), [nil, instance | dead]},
         {:ensure, Paths.service_directory(me), r: me},
         {:write, Paths.service_directory_version(me), @version},
         {:write, Paths.service(me, service), instance}
       ]}
  end

  @doc "Undoes `publish_service/4`. The service directory goes with its last service."
  @spec withdraw_service(Paths.domid(), service :: binary, instance :: binary) :: Batch.request()
  def withdraw_service(me, service, instance) do
    {:transaction,
     [
       {:guard, Paths.service(me, service), [instance]},
       {:rm, Paths.service(me, service)},
       {:prune, Paths.service_directory(me), ["version", "watch"]},
       {:prune, Paths.tip_root(me)}
     ]}
  end

  @doc """
  Removes everything that a dead predecessor left. For a VM that knows that it is the only one of
  its domain. On the local platform there is nothing to remove: a VM there is a whole domain.
  """
  @spec sweep(Paths.domid()) :: [Batch.request()]
  def sweep(me) do
    for path <- [
          Paths.nock_root(me),
          Paths.tip_root(me),
          Paths.service_directory(me),
          Paths.stats(me)
        ],
        do: {:rm, path}
  end
end
