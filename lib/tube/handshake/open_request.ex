defmodule Tube.Handshake.OpenRequest do
  @moduledoc false
  # How a tip learns that it is asked: from paths that changed in the nock's own directory, which
  # only that domain can write. So the path alone says who knocks.

  alias Tube.{Handshake, Paths}
  alias Tube.Handshake.Value

  @type knock :: %{
          peer: Paths.domid(),
          tid: Paths.tid(),
          service: binary,
          version: String.t(),
          nonce: Paths.nonce()
        }

  @version Integer.to_string(Handshake.version())
  @keys ~w(state nonce version tip service)

  @doc """
  What a changed path means for domain `me`: `:ignore`; or `{:look, peer, tid}`: there may be a
  knock, so send `requests/3`; or `{:list, peer}`: there may be several, so read the directory
  `Tube.Paths.outbox(peer, me)` and take its names to `tids/1`.
  """
  @spec changed(Paths.t(), me :: Paths.domid()) ::
          {:look, Paths.domid(), Paths.tid()} | {:list, Paths.domid()} | :ignore
  def changed(path, me) do
    case Paths.parse(path) do
      # A knock is complete when its state is there; the other keys would only make us read again.
      {:nock_node, peer, ^me, tid, key} when key in [nil, "state"] -> {:look, peer, tid}
      {:outbox, peer, ^me} -> {:list, peer}
      # Merged: so much has changed in that domain that it is told as one path.
      {:domain, peer} -> {:list, peer}
      _other -> :ignore
    end
  end

  @doc "The tubes that names of a directory stand for; other names are passed over."
  @spec tids([String.t()]) :: [Paths.tid()]
  def tids(names) do
    for name <- names, {:ok, tid} <- [Paths.tid(name)], do: tid
  end

  @doc "What to ask of the store; the answers, in this order, are for `judge/5`."
  # `state` first: if it is not 2 when it is read, the rest does not matter.
  @spec requests(peer :: Paths.domid(), me :: Paths.domid(), Paths.tid()) :: [Handshake.request()]
  def requests(peer, me, tid) do
    for key <- @keys, do: {:read, Paths.nock_node(peer, me, tid) <> "/" <> key}
  end

  @doc """
  Is it a knock? `:ignore`: no, or not yet, or no more.

  `{:refuse, knock, word}` is one that is answered by a tip with `verdict: {:refuse, word}`. Whether the
  service is ours, and whether this peer may ask at all, is for the door to say.
  """
  @spec judge([Handshake.result()], peer :: Paths.domid(), me :: Paths.domid(), Paths.tid()) ::
          {:knock, knock} | {:refuse, knock, Handshake.refusal()} | :ignore
  def judge([{:ok, "2"} | rest], peer, me, tid) do
    with [{:ok, nonce}, {:ok, version}, {:ok, tip}, {:ok, name}] <- rest,
         true <- Value.nonce?(nonce) do
      knock = %{peer: peer, tid: tid, service: nil, version: version, nonce: nonce}

      case Paths.unescape(name) do
        _any when version != @version ->
          {:refuse, knock, :version}

        {:ok, service} ->
          at_ours(%{knock | service: service}, tip == Paths.tip_node(me, peer, tid))

        :error ->
          {:refuse, knock, :protocol}
      end
    else
      # Without a nonce there is nothing to answer to.
      _incomplete -> :ignore
    end
  end

  def judge(_answers, _peer, _me, _tid), do: :ignore

  defp at_ours(knock, true), do: {:knock, knock}
  defp at_ours(knock, false), do: {:refuse, knock, :protocol}
end
