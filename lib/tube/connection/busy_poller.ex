defmodule Tube.Connection.BusyPoller do
  @moduledoc false
  # A process that polls a link for an active owner, or for the VM where the tube carries distribution. A
  # passive owner polls by itself, in `Tube.recv/2`.
  #
  # How long to look, and whether it pays, is decided in the link (native/link/src/poll.rs). Here is the
  # loop, in Erlang, so that between two looks everybody else runs: a native loop would hold a scheduler
  # that the receiver of the message may need.
  #
  # While it polls, the peer sends no notifications. If a poller dies, the process linked to it must end
  # the tube, or ask for notifications again by `stop/2`.

  alias Tube.Native

  @type option :: :off | {:adaptive, pos_integer}

  @doc """
  Starts a poller of `tube`, linked to the caller. It does what the link's setting (`Native.link_poll/2`)
  says, and ends with the tube. Needs nothing of the library but its native part.
  """
  @spec start_link(Tube.t()) :: {:ok, pid}
  def start_link(%{id: id, port: port}), do: {:ok, spawn_link(fn -> loop(id, port) end)}

  @doc "Does as the option `:poll` says, from a process that has the poller `pid` or none; which it has then."
  @spec set(pid | nil, Tube.t(), option) :: pid | nil
  def set(nil, _tube, :off), do: nil
  def set(pid, tube, :off), do: stop(pid, tube)

  def set(pid, tube, {:adaptive, microseconds}) do
    _ok_or_closed = Native.link_poll(tube.id, microseconds)

    with nil <- pid do
      {:ok, pid} = start_link(tube)
      pid
    end
  end

  @doc "Ends polling, and the poller `pid` if there is one: from here on there is a bell again."
  @spec stop(pid | nil, Tube.t()) :: nil
  def stop(pid, tube) do
    if pid do
      Process.unlink(pid)
      Process.exit(pid, :kill)
    end

    _ok_or_closed = Native.link_poll(tube.id, 0)
    _ok_or_closed = Native.Driver.deliver(tube.port)
    nil
  end

  defp loop(id, port) do
    case Native.poll(id) do
      :poll ->
        :erlang.yield()
        loop(id, port)

      :ready ->
        Native.Driver.deliver(port)
        loop(id, port)

      :wait ->
        receive do
          {:"$tube_data", ^id} -> loop(id, port)
        end

      {:error, :closed} ->
        :ok
    end
  end
end
