defmodule Tube.Label do
  @moduledoc false
  # What a process of ours is called where processes are looked at: observer, crash reports, the shell's
  # `i()`. OTP 27 has labels; before that the same word stands in the process dictionary.

  @doc "Labels the calling process."
  @spec set(term) :: :ok
  def set(label) do
    if function_exported?(:proc_lib, :set_label, 1) do
      apply(:proc_lib, :set_label, [label])
    else
      Process.put(:"$process_label", label)
      :ok
    end
  end

  @doc "A tube's label: its nock and number, its tip, its service, as `inspect/1` calls it too."
  @spec tube(%{
          :role => :nock | :tip,
          :domid => Tube.domid(),
          :peer => Tube.domid(),
          :tid => non_neg_integer,
          :service => binary,
          optional(any) => any
        }) :: {:tube, String.t(), binary}
  def tube(%{role: :nock} = tube), do: tube(tube.domid, tube.tid, tube.peer, tube.service)
  def tube(%{role: :tip} = tube), do: tube(tube.peer, tube.tid, tube.domid, tube.service)

  defp tube(nock, tid, tip, service), do: {:tube, "#{nock}:#{tid} -> #{tip}", service}
end
