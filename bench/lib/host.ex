defmodule Tube.Bench.Host do
  @moduledoc false
  # Facts about the machine and its processes, from /proc.

  alias Tube.Test.{Lab, VM}

  @idle_window 200

  @doc "Number of idle processors, measured for a moment."
  @spec idle_cpus() :: float
  def idle_cpus do
    {idle_before, all_before} = ticks()

    receive do
    after
      @idle_window -> :ok
    end

    {idle, all} = ticks()
    (idle - idle_before) / max(all - all_before, 1) * cpus()
  end

  @doc "Processor time of a process with its threads and system calls, in seconds."
  @spec cpu_seconds(pos_integer) :: float
  def cpu_seconds(os_pid) do
    # The name of the command is in brackets and may contain brackets.
    [_pid_and_name, fields] = "/proc/#{os_pid}/stat" |> File.read!() |> split_last(") ")
    # utime and stime are fields 14 and 15; `fields` starts with field 3.
    [utime, stime] =
      fields |> String.split() |> Enum.slice(11, 2) |> Enum.map(&String.to_integer/1)

    (utime + stime) / ticks_per_second()
  end

  @doc "Processor time of VMs. It is 0 for VMs in guests of the lab, which are not processes here."
  @spec vm_seconds([VM.t()]) :: float
  def vm_seconds(vms) do
    if Lab.here?(),
      do: 0.0,
      else: vms |> Enum.map(&cpu_seconds(VM.os_pid(&1))) |> Enum.sum()
  end

  @doc "Processors, kernel and OTP release, for the head of a report."
  @spec describe() :: String.t()
  def describe do
    model =
      case Regex.run(~r/^model name\s*: (.*)$/m, File.read!("/proc/cpuinfo")) do
        [_line, name] -> name
        nil -> "unknown processor"
      end

    [_linux, _version, kernel | _rest] = "/proc/version" |> File.read!() |> String.split()
    "#{model}, #{cpus()} processors, Linux #{kernel}, OTP #{:erlang.system_info(:otp_release)}"
  end

  defp cpus, do: :erlang.system_info(:logical_processors_available)

  # user nice system idle iowait irq softirq steal; user already includes the fields that follow.
  defp ticks do
    ["cpu" | numbers] =
      "/proc/stat" |> File.read!() |> String.split("\n") |> hd() |> String.split()

    ticks = numbers |> Enum.take(8) |> Enum.map(&String.to_integer/1)
    {Enum.at(ticks, 3) + Enum.at(ticks, 4), Enum.sum(ticks)}
  end

  # USER_HZ
  defp ticks_per_second do
    {number, 0} = System.cmd("getconf", ["CLK_TCK"])
    number |> String.trim() |> String.to_integer()
  end

  defp split_last(text, separator) do
    [last | before] = text |> String.split(separator) |> Enum.reverse()
    [before |> Enum.reverse() |> Enum.join(separator), last]
  end
end
