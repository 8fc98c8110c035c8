defmodule Tube.Demo.OutsideView do
  @moduledoc false
  # The view from outside: the store through Debian's xenstore-ls, the processes through the kernel.
  # This module does not call the library.

  alias Tube.Test.VM

  @doc "`xenstore-ls -fp` of a path as domain 0: one line per node."
  @spec xenstore_ls(Path.t(), String.t()) :: [String.t()]
  def xenstore_ls(run_dir, path) do
    {out, status} =
      System.cmd("timeout", ["10", "xenstore-ls", "-fp", path],
        env: [{"XENSTORED_PATH", Path.join(run_dir, "dom0/xenstored.sock")}],
        stderr_to_stdout: true
      )

    if status != 0, do: raise("xenstore-ls #{path}: #{out}")
    String.split(out, "\n", trim: true)
  end

  @doc "Open descriptors and mapped rings of a VM, according to the kernel."
  @spec holdings(VM.t()) :: %{descriptors: non_neg_integer, mappings: non_neg_integer}
  def holdings(vm) do
    maps = File.read!("/proc/#{VM.os_pid(vm)}/maps")

    %{
      descriptors: VM.fd_count(vm),
      mappings: maps |> String.split("\n") |> Enum.count(&(&1 =~ "/memfd:tube"))
    }
  end
end
