defmodule Tube.Domain.Hub do
  @moduledoc false
  # Starts tube-hub, the program that is hypervisor and store of the local platform. Any VM may
  # start it. If several do so at once, a lock file lets one win. A hub that a VM started exits once
  # it has had no domain for a while.

  alias Tube.Domain.RawFile

  # A hub without domains exits after this time.
  @idle_s 30

  # `tube-hub --daemon` ends as soon as a hub replies.
  @limit_ms 10_000

  # At most so much of its output is kept.
  @output_bytes 4_096

  @type error :: {:error, {:no_hub, String.t()}}

  @doc "The path of the program."
  @spec executable() :: Path.t()
  def executable, do: Path.join([:code.priv_dir(:tube), "native", "tube-hub"])

  @doc """
  Makes sure that a hub serves `run_dir`, ours or one that was faster. Waits until it replies.
  """
  @spec start(Path.t()) :: :ok | error()
  def start(run_dir) do
    if guest?(run_dir),
      do:
        no_hub(
          "no hub replies in #{run_dir}, which is only a domain's part of a run directory: start the hub outside"
        ),
      else: execute(executable(), ["--run", run_dir, "--daemon", "--idle", "#{@idle_s}"])
  end

  # A container gets only its dom<N>/ mounted, as its run directory or in it. A hub started there
  # could reach nobody outside. A run directory that ever had a hub contains its lock file; a
  # domain's directory contains the hub's sockets, or, after the hub stopped in good order, is at
  # least recognizable by its mount.
  defp guest?(run_dir) do
    case RawFile.ls(run_dir) do
      {:ok, names} ->
        "hub.lock" not in names and
          (Enum.any?(names, &(&1 == "control.sock" or domain?(&1))) or domain_mounted?(run_dir))

      {:error, _none} ->
        false
    end
  end

  # Fields 4 and 5 of mountinfo: the root within the file system, and the mount point.
  defp domain_mounted?(run_dir) do
    case RawFile.read("/proc/self/mountinfo") do
      {:ok, mounts} ->
        mounts
        |> String.split("\n", trim: true)
        |> Enum.map(&String.split(&1, " "))
        |> Enum.any?(fn [_id, _parent, _device, root, at | _options] ->
          at == run_dir and root |> Path.basename() |> domain?()
        end)

      {:error, _no_proc} ->
        false
    end
  end

  defp domain?(name), do: name =~ ~r/\Adom\d+\z/

  defp execute(program, args) do
    options = [:binary, :exit_status, :stderr_to_stdout, :hide, args: args]
    port = Port.open({:spawn_executable, program}, options)
    timer = :erlang.start_timer(@limit_ms, self(), port)

    case await(port, timer, "") do
      {0, _output} ->
        :ok

      {:timeout, _output} ->
        no_hub("#{program} started no hub that replies within #{div(@limit_ms, 1000)} s")

      {status, output} ->
        no_hub("#{program} ended with status #{status}: #{line(output)}")
    end
  rescue
    error in ErlangError ->
      no_hub("#{program} cannot be started: #{:file.format_error(error.original)}")
  end

  defp await(port, timer, output) do
    receive do
      {^port, {:data, more}} ->
        output = output <> more
        await(port, timer, binary_part(output, 0, min(byte_size(output), @output_bytes)))

      {^port, {:exit_status, status}} ->
        :erlang.cancel_timer(timer)
        {status, output}

      {:timeout, ^timer, ^port} ->
        # Leave the program running: the hub may only be late.
        Port.close(port)
        {:timeout, output}
    end
  end

  # An error is one line; if there are more, the last one is the reason for the exit.
  defp line(output) do
    case output |> String.split("\n", trim: true) |> List.last() do
      nil -> "it printed nothing"
      line -> if String.valid?(line), do: String.trim(line), else: inspect(line)
    end
  end

  defp no_hub(text), do: {:error, {:no_hub, text}}
end
