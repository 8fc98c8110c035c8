defmodule Tube.Test.FakeHub do
  @moduledoc """
  Stands in for a hub: takes each caller's HELLO and sends one reply. It knows only the part of the
  hub's protocol (native/platform/src/local/proto.rs) that is the same in every version.
  """

  @hello 1
  @reply 0x8000_0000
  @hub_version 0x1_0000

  @doc """
  Listens in `run_dir` until the test is over. The reply is

    * `{:welcome, version}` - from a hub of another version that accepts us
    * `{:refuse, version}` - from a hub that itself refuses our version
  """
  @spec start!(Path.t(), {:welcome | :refuse, non_neg_integer}) :: :ok
  def start!(run_dir, reply) do
    {:ok, socket} = :socket.open(:local, :seqpacket)
    :ok = :socket.bind(socket, %{family: :local, path: Path.join(run_dir, "hub.sock")})
    :ok = :socket.listen(socket)
    # A socket belongs to the process that opened it: this one ends with the test.
    ExUnit.Callbacks.start_supervised!({Task, fn -> serve(socket, reply) end})
    :ok
  end

  defp serve(listener, reply) do
    {:ok, caller} = :socket.accept(listener)

    {:ok, <<@hello::little-32, seq::little-32, version::little-32, _domid::binary>>} =
      :socket.recv(caller)

    :ok = :socket.send(caller, packet(reply, seq, version))
    # Until the caller closes.
    {_end_of_file, _} = :socket.recv(caller)
    :socket.close(caller)
    serve(listener, reply)
  end

  defp packet({:welcome, version}, seq, _theirs),
    do: <<@hello + @reply::little-32, seq::little-32, version::little-32, 1::little-16>>

  defp packet({:refuse, version}, seq, theirs) do
    text = "this hub speaks version #{version}, the domain #{theirs}"
    <<@reply::little-32, seq::little-32, @hub_version::little-32>> <> text
  end
end
