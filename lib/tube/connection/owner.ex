defmodule Tube.Connection.Owner do
  @moduledoc false
  # The owner of a tube, monitored by the tube's process. In port mode it is also linked.

  @enforce_keys [:pid, :monitor, :mode]
  defstruct [:pid, :monitor, :mode]

  @type t :: %__MODULE__{pid: pid, monitor: reference, mode: Tube.Native.mode()}

  @spec new(pid, Tube.Native.mode()) :: t
  def new(pid, mode) do
    if mode == :port, do: Process.link(pid)
    %__MODULE__{pid: pid, monitor: Process.monitor(pid), mode: mode}
  end

  @spec change(t, pid) :: t
  def change(owner, pid) do
    Process.demonitor(owner.monitor, [:flush])
    if owner.mode == :port, do: Process.unlink(owner.pid)
    new(pid, owner.mode)
  end

  @spec is?(t | nil, pid) :: boolean
  def is?(nil, _pid), do: false
  def is?(owner, pid), do: owner.pid == pid

  @doc """
  Forwards the tube's messages in the caller's mailbox to `new_owner`. The tube must be passive, so that
  none arrives meanwhile.
  """
  @spec forward(Tube.t(), pid) :: :ok
  def forward(%{pid: pid} = tube, new_owner) do
    receive do
      {tag, ^tube, _} = message when tag in [:tube, :tube_error] ->
        send_on(tube, new_owner, message)

      {tag, ^tube} = message when tag in [:tube_passive, :tube_closed] ->
        send_on(tube, new_owner, message)

      {^pid, {:data, _}} = message ->
        send_on(tube, new_owner, message)
    after
      0 -> :ok
    end
  end

  defp send_on(tube, new_owner, message) do
    send(new_owner, message)
    forward(tube, new_owner)
  end

  @doc """
  Sends the exit signal that a port sends to its owner when it ends: `:normal` after `:closed`.

  The process itself ends normally, whatever the reason: the loss of a peer is not an error for the
  supervisor to report.
  """
  @spec exit(t, term) :: :ok
  def exit(owner, reason) do
    Process.unlink(owner.pid)
    Process.exit(owner.pid, if(reason == :closed, do: :normal, else: reason))
    :ok
  end
end
