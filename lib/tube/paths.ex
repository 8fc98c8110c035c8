defmodule Tube.Paths do
  @moduledoc false
  # Every path that tubes use in xenstore, both ways: built here, and taken apart here.
  #
  #     /local/domain/<tip>/data/tube                         the door
  #     /local/domain/<tip>/data/tube/<service>               who answers for a service
  #     /local/domain/<nock>/data/nock/<tip>/<tid>            the knock: the nock's half of a tube
  #     /local/domain/<tip>/data/tip/<nock>                   the inbox of one peer
  #     /local/domain/<tip>/data/tip/<nock>/<tid>             the entry: the tip's half of a tube
  #     /local/domain/<domid>/data/stats                      counters, while somebody looks at them
  #
  # Parsing is strict: a path that is not exactly what this module would build is nobody's. So a
  # domid or tid with a leading zero never stands for the same tube as one without.

  @type t :: String.t()
  @type domid :: 0..0x7FEF
  @type tid :: 0..0xFFFFFFFF

  @typedoc "Sixteen lower-case hex digits: 64 random bits that name one attempt."
  @type nonce :: String.t()

  @typedoc "What a path belongs to. `key` is what follows the tube's or the door's own directory."
  @type parsed ::
          {:domain, domid}
          | {:door, domid, key :: String.t() | nil}
          | {:knocks, nock :: domid, tip :: domid}
          | {:knock, nock :: domid, tip :: domid, tid, key :: String.t() | nil}
          | {:inbox, tip :: domid, nock :: domid}
          | {:entry, tip :: domid, nock :: domid, tid, key :: String.t() | nil}
          | :other

  @domains "/local/domain"
  @max_domid 0x7FEF
  @max_tid 0xFFFFFFFF

  # Names of the door's own nodes: a service of that name is escaped.
  @reserved ~w(version watch stats)
  @max_service 64

  @doc "The parent of all domains."
  @spec domains() :: t
  def domains, do: @domains

  @doc "Not a node: watched, it tells that some domain has ended, to whom domain 0 permits it."
  @spec released() :: t
  def released, do: "@releaseDomain"

  @doc "The part of a domain's tree that belongs to the domain itself."
  @spec data(domid) :: t
  def data(domid) when domid in 0..@max_domid, do: "#{@domains}/#{domid}/data"

  @doc "Exists while this domain takes tubes."
  @spec door(domid) :: t
  def door(tip), do: data(tip) <> "/tube"

  @spec door_version(domid) :: t
  def door_version(tip), do: door(tip) <> "/version"

  @doc "Names the instance that answers for a service."
  @spec service(domid, service :: binary) :: t
  def service(tip, service), do: door(tip) <> "/" <> escape(service)

  @doc "Parent of all that a domain asks for."
  @spec nock_root(domid) :: t
  def nock_root(nock), do: data(nock) <> "/nock"

  @doc "Parent of all that one nock asks of one tip; the tip may list it."
  @spec knocks(nock :: domid, tip :: domid) :: t
  def knocks(nock, tip) when tip in 0..@max_domid, do: "#{nock_root(nock)}/#{tip}"

  @doc "The nock's half of one tube."
  @spec knock(nock :: domid, tip :: domid, tid) :: t
  def knock(nock, tip, tid) when tid in 0..@max_tid, do: "#{knocks(nock, tip)}/#{tid}"

  @doc "Parent of all inboxes of a domain."
  @spec tip_root(domid) :: t
  def tip_root(tip), do: data(tip) <> "/tip"

  @doc "Where one peer may write at the tip."
  @spec inbox(tip :: domid, nock :: domid) :: t
  def inbox(tip, nock) when nock in 0..@max_domid, do: "#{tip_root(tip)}/#{nock}"

  @doc "The tip's half of one tube."
  @spec entry(tip :: domid, nock :: domid, tid) :: t
  def entry(tip, nock, tid) when tid in 0..@max_tid, do: "#{inbox(tip, nock)}/#{tid}"

  @doc "What a domain shows of its tubes' counters while somebody looks."
  @spec stats(domid) :: t
  def stats(me), do: data(me) <> "/stats"

  @doc "Written by whoever looks, for as long as it does."
  @spec stats_watch(domid) :: t
  def stats_watch(me), do: stats(me) <> "/watch"

  @doc "The counters of one end of a tube."
  @spec stats(me :: domid, :nock | :tip, peer :: domid, tid) :: t
  def stats(me, role, peer, tid)
      when role in [:nock, :tip] and peer in 0..@max_domid and tid in 0..@max_tid,
      do: "#{stats(me)}/#{role}/#{peer}/#{tid}"

  @doc "What a path is, `:other` if it is none of ours."
  @spec parse(t) :: parsed
  def parse(@domains <> "/" <> rest) do
    case String.split(rest, "/") do
      [domid | below] -> with {:ok, domid} <- domid(domid), do: below(domid, below)
    end
  end

  def parse(_other), do: :other

  defp below(domid, []), do: {:domain, domid}
  defp below(domid, ["data", "tube" | key]), do: {:door, domid, key(key)}

  defp below(domid, ["data", side, peer | rest]) when side in ["nock", "tip"] do
    with {:ok, peer} <- domid(peer), do: tube(side, domid, peer, rest)
  end

  defp below(_domid, _other), do: :other

  defp tube("nock", nock, tip, []), do: {:knocks, nock, tip}
  defp tube("tip", tip, nock, []), do: {:inbox, tip, nock}

  defp tube(side, owner, peer, [tid | key]) do
    with {:ok, tid} <- tid(tid) do
      {if(side == "nock", do: :knock, else: :entry), owner, peer, tid, key(key)}
    end
  end

  defp key([]), do: nil
  defp key(names), do: Enum.join(names, "/")

  defp domid(text), do: number(text, @max_domid)

  @doc "A tube number as it stands in a path."
  @spec tid(String.t()) :: {:ok, tid} | :other
  def tid(text), do: number(text, @max_tid)

  defp number(text, max) do
    case Integer.parse(text) do
      {n, ""} when n in 0..max//1 -> if Integer.to_string(n) == text, do: {:ok, n}, else: :other
      _other -> :other
    end
  end

  @doc """
  A service name as a node name: letters, digits and `-` stand for themselves, any other byte is
  `_` and two hex digits. Names that the door uses itself have their first letter escaped.

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

  @doc "The service that a node name stands for, if it is one that `escape/1` gives."
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
