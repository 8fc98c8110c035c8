defmodule Tube.Paths do
  @moduledoc false
  # Builds and parses every xenstore path of a tube.
  #
  #     /local/domain/<tip>/data/tube                 the service directory
  #     /local/domain/<tip>/data/tube/<service>       the instance that serves a service
  #     /local/domain/<nock>/data/nock/<tip>          the outbox: the nock's tubes to one tip
  #     /local/domain/<nock>/data/nock/<tip>/<tid>    the nock's node: its half of a tube
  #     /local/domain/<tip>/data/tip/<nock>           the inbox: the tip's tubes from one nock
  #     /local/domain/<tip>/data/tip/<nock>/<tid>     the tip's node: its half of a tube
  #     /local/domain/<domid>/data/stats              counters, while somebody reads them
  #
  # Parsing is strict: it accepts exactly the paths that this module builds. A domid or tid with a
  # leading zero is therefore never an alias of the one without.

  # The last domid that Xen gives to a domain: DOMID_FIRST_RESERVED - 1.
  @max_domid 0x7FEF
  @max_tid 0xFFFFFFFF

  @type t :: String.t()
  @type domid :: 0..unquote(@max_domid)
  @type tid :: 0..unquote(@max_tid)

  @typedoc "Sixteen lower-case hex digits: 64 random bits that identify one attempt."
  @type nonce :: String.t()

  @typedoc "A parsed path. `key` is the part below the directory."
  @type parsed ::
          {:domain, domid}
          | {:service_directory, domid, key :: String.t() | nil}
          | {:outbox, nock :: domid, tip :: domid}
          | {:nock_node, nock :: domid, tip :: domid, tid, key :: String.t() | nil}
          | {:inbox, tip :: domid, nock :: domid}
          | {:tip_node, tip :: domid, nock :: domid, tid, key :: String.t() | nil}
          | :other

  @domains "/local/domain"

  # Nodes of the service directory itself: services with these names are escaped.
  @reserved ~w(version watch stats)
  @max_service 64

  @doc "The highest domid of a domain."
  @spec max_domid() :: domid
  def max_domid, do: @max_domid

  @doc "Is `value` a domid?"
  defguard is_domid(value) when value in 0..@max_domid

  @doc "The parent of all domains."
  @spec domains() :: t
  def domains, do: @domains

  @doc "Not a node: its watch fires when any domain ends, if domain 0 permits the watch."
  @spec released() :: t
  def released, do: "@releaseDomain"

  @doc "The subtree that the domain itself may write."
  @spec data(domid) :: t
  def data(domid) when is_domid(domid), do: "#{@domains}/#{domid}/data"

  @doc "The directory of services. It exists while the domain listens for tubes."
  @spec service_directory(domid) :: t
  def service_directory(tip), do: data(tip) <> "/tube"

  @spec service_directory_version(domid) :: t
  def service_directory_version(tip), do: service_directory(tip) <> "/version"

  @doc "Holds the name of the instance that serves `service`."
  @spec service(domid, service :: binary) :: t
  def service(tip, service), do: service_directory(tip) <> "/" <> escape(service)

  @doc "Parent of all outboxes of a domain."
  @spec nock_root(domid) :: t
  def nock_root(nock), do: data(nock) <> "/nock"

  @doc "The nock's directory for one tip. The tip may list it."
  @spec outbox(nock :: domid, tip :: domid) :: t
  def outbox(nock, tip) when is_domid(tip), do: "#{nock_root(nock)}/#{tip}"

  @doc "The nock's half of a tube. With its state at 2 it is an open request."
  @spec nock_node(nock :: domid, tip :: domid, tid) :: t
  def nock_node(nock, tip, tid) when tid in 0..@max_tid, do: "#{outbox(nock, tip)}/#{tid}"

  @doc "Parent of all inboxes of a domain."
  @spec tip_root(domid) :: t
  def tip_root(tip), do: data(tip) <> "/tip"

  @doc "The tip's directory for one nock, which may write there."
  @spec inbox(tip :: domid, nock :: domid) :: t
  def inbox(tip, nock) when is_domid(nock), do: "#{tip_root(tip)}/#{nock}"

  @doc "The tip's half of a tube."
  @spec tip_node(tip :: domid, nock :: domid, tid) :: t
  def tip_node(tip, nock, tid) when tid in 0..@max_tid, do: "#{inbox(tip, nock)}/#{tid}"

  @doc "The counters of a domain's tubes, published while somebody reads them."
  @spec stats(domid) :: t
  def stats(me), do: data(me) <> "/stats"

  @doc "A reader of the counters renews its lease by writing this node."
  @spec stats_watch(domid) :: t
  def stats_watch(me), do: stats(me) <> "/watch"

  @doc "The counters of one end of a tube."
  @spec stats(me :: domid, :nock | :tip, peer :: domid, tid) :: t
  def stats(me, role, peer, tid)
      when role in [:nock, :tip] and is_domid(peer) and tid in 0..@max_tid,
      do: "#{stats(me)}/#{role}/#{peer}/#{tid}"

  @doc "Parses a path; `:other` if this module would not build it."
  @spec parse(t) :: parsed
  def parse(@domains <> "/" <> rest) do
    case String.split(rest, "/") do
      [domid | below] -> with {:ok, domid} <- domid(domid), do: below(domid, below)
    end
  end

  def parse(_other), do: :other

  defp below(domid, []), do: {:domain, domid}
  defp below(domid, ["data", "tube" | key]), do: {:service_directory, domid, key(key)}

  defp below(domid, ["data", side, peer | rest]) when side in ["nock", "tip"] do
    with {:ok, peer} <- domid(peer), do: tube(side, domid, peer, rest)
  end

  defp below(_domid, _other), do: :other

  defp tube("nock", nock, tip, []), do: {:outbox, nock, tip}
  defp tube("tip", tip, nock, []), do: {:inbox, tip, nock}

  defp tube(side, owner, peer, [tid | key]) do
    with {:ok, tid} <- tid(tid) do
      {if(side == "nock", do: :nock_node, else: :tip_node), owner, peer, tid, key(key)}
    end
  end

  defp key([]), do: nil
  defp key(names), do: Enum.join(names, "/")

  defp domid(text), do: number(text, @max_domid)

  @doc "Parses a tube's number as it appears in a path."
  @spec tid(String.t()) :: {:ok, tid} | :other
  def tid(text), do: number(text, @max_tid)

  defp number(text, max) do
    case Integer.parse(text) do
      {n, ""} when n in 0..max//1 -> if Integer.to_string(n) == text, do: {:ok, n}, else: :other
      _other -> :other
    end
  end

  @doc """
  Encodes a service name as a node name. Letters, digits and `-` stay; any other byte becomes `_`
  and two hex digits. Names of the service directory's own nodes get their first letter escaped.

      iex> Tube.Paths.escape("chat.v2")
      "chat_2ev2"
  """
  @spec escape(service :: binary) :: String.t()
  def escape(service) when byte_size(service) in 1..@max_service do
    case for(<<byte <- service>>, into: "", do: escape_byte(byte)) do
      <<first, rest::binary>> = name when name in @reserved -> hex(first) <> rest
      name -> name
    end
  end

  defp escape_byte(c) when c in ?a..?z or c in ?A..?Z or c in ?0..?9 or c == ?-, do: <<c>>
  defp escape_byte(c), do: hex(c)

  defp hex(byte), do: "_" <> Base.encode16(<<byte>>, case: :lower)

  @doc "Decodes a node name, if `escape/1` would produce it."
  @spec unescape(String.t()) :: {:ok, service :: binary} | :error
  def unescape(name) do
    with {:ok, service} when byte_size(service) in 1..@max_service <- unescape(name, ""),
         ^name <- escape(service) do
      {:ok, service}
    else
      _other -> :error
    end
  end

  defp unescape("", service), do: {:ok, service}

  defp unescape(<<?_, hex::binary-size(2), rest::binary>>, service) do
    with {:ok, byte} <- Base.decode16(hex, case: :lower), do: unescape(rest, service <> byte)
  end

  defp unescape(<<c, rest::binary>>, service), do: unescape(rest, <<service::binary, c>>)
end
