defmodule Tube.Domain.Hub do
  @moduledoc false
  # The local platform's hypervisor and store is a program of its own, tube-hub, that any VM may
  # start. A lock file decides between those that start one at the same time, so nobody has to ask
  # first; and one that was started so leaves by itself when it has had no domain for a while.

  alias Tube.Domain.RawFile

  # How long a hub without domains stays.
  @idle_s 30

  # `tube-hub --daemon` ends as soon as a hub answers.
  @limit_ms 10_000

  # What is kept of its complaints.
  @output_bytes 4_096

  @type error :: {:error, {:no_hub, String.t()}}

  @doc "Where the program is."
  @spec executable() :: Path.t()
  def executable, do: Path.join([:code.priv_dir(:tube), "native", "tube-hub"])

  @doc """
  Makes sure that a hub serves `run_dir`: ours or one that was faster. Waits until it answers.
  """
  @spec start(Path.t()) :: :ok | error()
  def start(run_dir) do
    if guest?(run_dir),
      do:
        no_hub(
          "no hub answers in #{run_dir}, and it is only a domain's part of a run directory: the hub has to be started outside"
        ),
      else: execute(executable(), ["--run", run_dir, "--daemon", "--idle", "#{@idle_s}"])
  end

  # A container gets its dom<N>/ mounted, as its run directory or in it, and nothing else. A hub
  # started there would be another world: nobody outside could be reached through it. Where a hub
  # has ever been, its lock file is; where one was stopped in good order no sockets are left in a
  # domain's directory, but the mount still says what it is.
  defp guest?(run_dir) do
    case RawFile.ls(run_dir) do
      {:ok, names} ->
        "hub.lock" not in names and
          (Enum.any?(names, &(&1 == "control.sock" or domain?(&1))) or domain_mounted?(run_dir))

      {:error, _none} ->
        false
    end
  end

  # Fields 4 and 5 of mountinfo: what of its file system is mounted, and where.
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
        no_hub("#{program} did not get a hub to answer within #{div(@limit_ms, 1000)} s")

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
        # It is left to itself: a hub that it may have started would be no worse for being late.
        Port.close(port)
        {:timeout, output}
    end
  end

  # Its complaint is one line; should there be more, the last one is what ended it.
  defp line(output) do
    case output |> String.split("\n", trim: true) |> List.last() do
      nil -> "it said nothing"
      line -> if String.valid?(line), do: String.trim(line), else: inspect(line)
    end
  end

  defp no_hub(text), do: {:error, {:no_hub, text}}
end
