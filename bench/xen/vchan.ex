defmodule Tube.Bench.Xen.Vchan do
  @moduledoc false
  # A libxenvchan channel between two guests: a program at each end (native/platform/examples/vchan),
  # which is told what to do a line at a time, so that its measurements lie between those of others.

  alias Tube.Test.Lab

  defstruct [:far, :near, :rings]

  @type t :: %__MODULE__{far: port, near: port, rings: [pos_integer]}

  # No measurement takes this long; one that does hangs.
  @deadline 120_000
  # Of a line with the nanoseconds of each round trip.
  @line 1_048_576

  @doc "Domain 5 offers, 7 opens. `:rings` of the result are the sizes as both have them."
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

  @doc "Nanoseconds of `count` messages, or of each round trip."
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

  # The one that opened first: the other's nodes in the store go with it.
  @spec close(t) :: :ok
  def close(%__MODULE__{near: near, far: far}) do
    for port <- [near, far] do
      Port.command(port, "end\n")
      receive do: ({^port, {:exit_status, 0}} -> :ok)
    end

    :ok
  end

  defp both(%__MODULE__{near: near, far: far}, ask, answer, size, count) do
    Port.command(far, "#{answer} #{size} #{count}\n")
    Port.command(near, "#{ask} #{size} #{count}\n")
    said = line(near)
    "done" = line(far)
    said
  end

  defp start(domid, args) do
    program = System.fetch_env!("TUBE_BENCH_VCHAN")
    # The library lies beside the program: guests have no use for it otherwise.
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
      @deadline -> raise "the program of libxenvchan says nothing"
    end
  end
end
