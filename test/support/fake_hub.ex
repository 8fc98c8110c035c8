defmodule Tube.Test.FakeHub do
  @moduledoc """
  A process that sits where a hub would, takes each caller's HELLO and gives one answer. Of the hub's
  protocol (native/platform/src/local/proto.rs) it knows what stays the same in every version.
  """

  @hello 1
  @reply 0x8000_0000
  @hub_version 0x1_0000

  @doc """
  Listens in `run_dir` until the test is over. The answer is

    * `{:welcome, version}` - from a hub that takes us in, and is of another version
    * `{:refuse, version}` - from one that sees for itself that ours is not its own
  """
  @spec start!(Path.t(), {:welcome | :refuse, non_neg_integer}) :: :ok
  def start!(run_dir, answer) do
    {:ok, socket} = :socket.open(:local, :seqpacket)
    :ok = :socket.bind(socket, %{family: :local, path: Path.join(run_dir, "hub.sock")})
    :ok = :socket.listen(socket)
    # A socket belongs to the process that opened it; this one is the test's, and ends with it.
    ExUnit.Callbacks.start_supervised!({Task, fn -> serve(socket, answer) end})
    :ok
  end

  defp serve(listener, answer) do
    {:ok, caller} = :socket.accept(listener)

    {:ok, <<@hello::little-32, seq::little-32, version::little-32, _domid::binary>>} =
      :socket.recv(caller)

    :ok = :socket.send(caller, reply(answer, seq, version))
    # Until the caller has had enough.
    {_end_of_file, _} = :socket.recv(caller)
    :socket.close(caller)
    serve(listener, answer)
  end

  defp reply({:welcome, version}, seq, _theirs),
    do: <<@hello + @reply::little-32, seq::little-32, version::little-32, 1::little-16>>

  defp reply({:refuse, version}, seq, theirs) do
    text = "this hub speaks version #{version}, the domain #{theirs}"
    <<@reply::little-32, seq::little-32, @hub_version::little-32>> <> text
  end
end
