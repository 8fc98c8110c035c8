defmodule Tube.Test.RunDir do
  @moduledoc """
  Private run directories for tests. Each is new, and is removed with its hub afterwards.

      import Tube.Test.RunDir
      setup :fresh_run_dir

      test "...", %{run_dir: run_dir} do
  """

  alias Tube.Test.Eventually

  # Normally a hub exits within milliseconds of SIGTERM.
  @death 10_000

  @doc "An ExUnit set-up function: puts `:run_dir` into the context."
  @spec fresh_run_dir(map) :: map
  def fresh_run_dir(_context \\ %{}) do
    run_dir = create()
    ExUnit.Callbacks.on_exit(fn -> remove(run_dir) end)
    %{run_dir: run_dir}
  end

  @doc "Creates a run directory. The caller must call `remove/1` at the end."
  @spec create() :: Path.t()
  def create do
    # Short, because names of Unix sockets are limited to 108 bytes.
    name = "tube-#{System.pid()}-#{System.unique_integer([:positive])}"
    path = Path.join(System.tmp_dir!(), name)
    File.mkdir!(path)
    File.chmod!(path, 0o700)
    path
  end

  @doc "Ends the hub of a run directory, if there is one, and removes the directory."
  @spec remove(Path.t()) :: :ok
  def remove(run_dir) do
    :ok = end_hub(run_dir, "TERM")
    File.rm_rf!(run_dir)
    :ok
  end

  @doc "Ends the hub of a run directory with a signal, and returns when it is dead."
  @spec end_hub(Path.t(), String.t()) :: :ok
  def end_hub(run_dir, signal \\ "KILL") do
    for pid <- hub_pids(run_dir) do
      System.cmd("kill", ["-s", signal, "#{pid}"], stderr_to_stdout: true)
      Eventually.true!(fn -> pid not in hub_pids(run_dir) end, @death)
    end

    :ok
  end

  @doc """
  Returns the pids of the hubs that serve exactly this run directory.

  Finds them by their command lines, not by the lock file, so that tests of the lock can use it.
  """
  @spec hub_pids(Path.t()) :: [pos_integer]
  def hub_pids(run_dir) do
    for entry <- File.ls!("/proc"),
        {pid, ""} <- [Integer.parse(entry)],
        {:ok, line} <- [File.read("/proc/#{pid}/cmdline")],
        [program | args] <- [String.split(line, <<0>>)],
        Path.basename(program) == "tube-hub" and run_dir in args,
        do: pid
  end
end
