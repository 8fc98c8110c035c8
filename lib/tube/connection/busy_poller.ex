defmodule Tube.Connection.BusyPoller do
  @moduledoc false
  # A process that polls a link for an active owner, or for the VM where the tube carries distribution. A
  # passive owner polls by itself, in `Tube.recv/2`.
  #
  # The link decides how long to poll, and whether it pays (native/link/src/half/busy_poll.rs). The loop is
  # in Erlang, so that other processes run between two polls: a native loop would hold a scheduler that the
  # receiver of the message may need.
  #
  # While it polls, the peer sends no notifications. If a poller dies, the process linked to it must end
  # the tube, or ask for notifications again by `stop/2`.

  alias Tube.Native

  @type option :: :off | {:adaptive, pos_integer}

  @doc """
  Starts a poller of `tube`, linked to the caller. It polls as `Native.link_poll/2` has set, and ends with the
  tube. It needs only the native part of the library.
  """
  @spec start_link(Tube.t()) :: {:ok, pid}
  def start_link(%{id: id, port: port}), do: {:ok, spawn_link(fn -> loop(id, port) end)}

  @doc "Applies the option `:poll`. `pid` is the caller's poller, if any; returns the poller that it has then."
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

  @doc "Ends busy polling, and the poller `pid` if there is one: notifications are asked for again."
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
