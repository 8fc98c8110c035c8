defmodule Tube.Bench.Xen.Vchan do
  @moduledoc false
  # A libxenvchan channel between two guests, with a program at each end
  # (native/platform/examples/vchan). A line starts each measurement, so that it takes turns with
  # other carriers.

  alias Tube.Test.Lab

  defstruct [:far, :near, :rings]

  @type t :: %__MODULE__{far: port, near: port, rings: [pos_integer]}

  # A measurement that takes longer hangs.
  @deadline 120_000
  # Maximum length of a line, which may have the nanoseconds of each round trip.
  @line 1_048_576

  @doc "Domain 5 offers, domain 7 opens. `:rings` has the sizes at both ends."
  @spec open(pos_integer) :: t
  def open(bytes) do
    path = "/local/domain/5/data/vchan/7/bench"
    far = start(5, ["offer", "7", path, "#{bytes}"])
    "rings " <> offered = line(far)
    near = start(7, ["open", "5", path])
    "rings " <> opened = line(near)
    rings = for word <- String.split("#{offered} #{opened}"), do: String.to_integer(word)
    %__MODULE__{far: far, near: near, rings: rings}
  end

  @doc "Measures `count` messages. Returns total nanoseconds, and those of each round trip."
  @spec run(t, :pull | :rtt, pos_integer, pos_integer) :: {pos_integer, [pos_integer]}
  def run(vchan, :pull, size, count) do
    "took " <> nanoseconds = both(vchan, "send", "take", size, count)
    {String.to_integer(nanoseconds), []}
  end

  def run(vchan, :rtt, size, count) do
    "samples " <> samples = both(vchan, "ask", "answer", size, count)
    samples = samples |> String.split() |> Enum.map(&String.to_integer/1)
    {Enum.sum(samples), samples}
  end

  # Closes the opening end first: the nodes of the offering end vanish with it.
  @spec close(t) :: :ok
  def close(%__MODULE__{near: near, far: far}) do
    for port <- [near, far] do
      Port.command(port, "end\n")
      receive do: ({^port, {:exit_status, 0}} -> :ok)
    end

    :ok
  end

  defp both(%__MODULE__{near: near, far: far}, near_command, far_command, size, count) do
    Port.command(far, "#{far_command} #{size} #{count}\n")
    Port.command(near, "#{near_command} #{size} #{count}\n")
    result = line(near)
    "done" = line(far)
    result
  end

  defp start(domid, args) do
    program = System.fetch_env!("TUBE_BENCH_VCHAN")
    # The library is in the directory of the program.
    words = ["env", "LD_LIBRARY_PATH=#{Path.dirname(program)}", program | args]
    env = [{~c"TUBE_DOMID", ~c"#{domid}"}]
    options = [:binary, :exit_status, {:line, @line}, args: words, env: env]
    Port.open({:spawn_executable, Lab.enter()}, options)
  end

  defp line(port) do
    receive do
      {^port, {:data, {:eol, line}}} -> line
      {^port, {:exit_status, status}} -> raise "the program of libxenvchan ended with #{status}"
    after
      @deadline -> raise "the program of libxenvchan does not reply"
    end
  end
end
