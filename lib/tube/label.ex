defmodule Tube.Label do
  @moduledoc false
  # Names of tubes, and the labels of processes in observer, crash reports and the shell's `i()`.
  # OTP 27 has process labels; before that the label is in the process dictionary.

  @typedoc "What the library knows of one end of a tube. Either `:me` or `:domid` is this domain."
  @type tube :: %{
          :role => :nock | :tip,
          :peer => Tube.domid(),
          :tid => non_neg_integer,
          optional(:me) => Tube.domid(),
          optional(:domid) => Tube.domid(),
          optional(any) => any
        }

  @doc "The name of a tube, the same at both ends: `7:0 -> 5` is tube 0 from nock 7 to tip 5."
  @spec name(tube) :: String.t()
  def name(tube) do
    {nock, tid, tip} = ends(tube)
    "#{nock}:#{tid} -> #{tip}"
  end

  @doc "The nock, the number and the tip of a tube, whichever end this is."
  @spec ends(tube) :: {Tube.domid(), non_neg_integer, Tube.domid()}
  def ends(%{role: :nock} = tube), do: {me(tube), tube.tid, tube.peer}
  def ends(%{role: :tip} = tube), do: {tube.peer, tube.tid, me(tube)}

  defp me(%{me: domid}), do: domid
  defp me(%{domid: domid}), do: domid

  @doc "The label of a tube's process."
  @spec tube(%{:service => binary, optional(any) => any}) :: {:tube, String.t(), binary}
  def tube(tube), do: {:tube, name(tube), tube.service}

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
end
