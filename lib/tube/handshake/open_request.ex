defmodule Tube.Handshake.OpenRequest do
  @moduledoc false
  # A nock's request to open a tube, as the tip reads it from the nock's own directory. Only the
  # nock's domain can write there, so the path alone identifies the requester.

  alias Tube.{Handshake, Paths}
  alias Tube.Handshake.Value
  alias Tube.Xenstore.Batch

  @type t :: %{
          peer: Paths.domid(),
          tid: Paths.tid(),
          service: binary | nil,
          version: String.t(),
          nonce: Paths.nonce()
        }

  @version Integer.to_string(Handshake.version())
  @keys ~w(state nonce version tip service)

  @doc """
  What a changed path means for domain `me`: `:ignore`; `{:read, peer, tid}` if there may be an
  open request, so send `reads/3`; or `{:list, peer}` if there may be several, so read the directory
  `Tube.Paths.outbox(peer, me)` and pass its names to `tids/1`.
  """
  @spec changed(Paths.t(), me :: Paths.domid()) ::
          {:read, Paths.domid(), Paths.tid()} | {:list, Paths.domid()} | :ignore
  def changed(path, me) do
    case Paths.parse(path) do
      # A request is complete once its state is there; other keys would only cause extra reads.
      {:nock_node, peer, ^me, tid, key} when key in [nil, "state"] -> {:read, peer, tid}
      {:outbox, peer, ^me} -> {:list, peer}
      # Merged: so much changed in that domain that it is reported as one path.
      {:domain, peer} -> {:list, peer}
      _other -> :ignore
    end
  end

  @doc "The tubes that names of a directory stand for. Other names are skipped."
  @spec tids([String.t()]) :: [Paths.tid()]
  def tids(names) do
    for name <- names, {:ok, tid} <- [Paths.tid(name)], do: tid
  end

  @doc "The reads whose replies `parse/4` takes, in this order."
  # `state` first: if it is not 2 when it is read, the rest does not matter.
  @spec reads(peer :: Paths.domid(), me :: Paths.domid(), Paths.tid()) :: [Batch.plain()]
  def reads(peer, me, tid) do
    for key <- @keys, do: {:read, Paths.nock_node(peer, me, tid) <> "/" <> key}
  end

  @doc """
  Parses an open request. `:ignore`: there is none, or it is not complete, or it is gone.

  Start a tip with `verdict: {:refuse, word}` for `{:refuse, request, word}`. The caller decides
  whether the service is ours and whether this peer may open it.
  """
  @spec parse([Batch.result()], peer :: Paths.domid(), me :: Paths.domid(), Paths.tid()) ::
          {:request, t} | {:refuse, t, Handshake.refusal()} | :ignore
  def parse([{:ok, "2"} | rest], peer, me, tid) do
    with [{:ok, nonce}, {:ok, version}, {:ok, tip}, {:ok, name}] <- rest,
         true <- Value.nonce?(nonce) do
      request = %{peer: peer, tid: tid, service: nil, version: version, nonce: nonce}

      case Paths.unescape(name) do
        _any when version != @version ->
          {:refuse, request, :version}

        {:ok, service} ->
          check_tip(%{request | service: service}, tip == Paths.tip_node(me, peer, tid))

        :error ->
          {:refuse, request, :protocol}
      end
    else
      # Without a nonce no reply is possible.
      _incomplete -> :ignore
    end
  end

  def parse(_replies, _peer, _me, _tid), do: :ignore

  defp check_tip(request, true), do: {:request, request}
  defp check_tip(request, false), do: {:refuse, request, :protocol}
end
