defmodule Tube.Test.RunDir do
  @moduledoc """
  Run directories for tests: each fresh, ours alone, and gone with its hub afterwards.

      import Tube.Test.RunDir
      setup :fresh_run_dir

      test "...", %{run_dir: run_dir} do
  """

  alias Tube.Test.Eventually

  # A hub leaves within milliseconds of SIGTERM.
  @death 10_000

  @doc "An ExUnit set-up function: puts `:run_dir` into the context."
  @spec fresh_run_dir(map) :: map
  def fresh_run_dir(_context \\ %{}) do
    run_dir = create()
    ExUnit.Callbacks.on_exit(fn -> remove(run_dir) end)
    %{run_dir: run_dir}
  end

  @doc "Makes a run directory. The caller gives it to `remove/1` in the end."
  @spec create() :: Path.t()
  def create do
    # Short, because unix socket names end at 108 bytes.
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

  @doc "Ends the hub of a run directory by a signal, and returns when it is dead."
  @spec end_hub(Path.t(), String.t()) :: :ok
  def end_hub(run_dir, signal \\ "KILL") do
    for pid <- hub_pids(run_dir) do
      System.cmd("kill", ["-s", signal, "#{pid}"], stderr_to_stdout: true)
      Eventually.true!(fn -> pid not in hub_pids(run_dir) end, @death)
    end

    :ok
  end

  @doc """
  The pids of the hubs that serve exactly this run directory, by their command lines.

  Not by the lock file: a test of the lock must not rest on it.
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
