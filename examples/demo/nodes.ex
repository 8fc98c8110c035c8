defmodule Tube.Demo.Nodes do
  @moduledoc false
  # Part two of the demo: two nodes of distributed Erlang connect over a tube and exchange calls,
  # then the same over TCP for comparison.

  alias Tube.Bench.Dist.Nodes
  alias Tube.Bench.{Report, Stats}
  alias Tube.Demo.Screen
  alias Tube.Test.{RunDir, VM}

  @carriers [{"tube", []}, {"inet_tcp", false}]
  # Each round measures both carriers, so that both see the same state of the machine.
  @rounds 3
  @ms 300

  @spec run(Path.t(), [module]) :: :ok
  def run(dir, modules) do
    File.mkdir_p!(dir)
    Screen.title("Part two: two nodes of distributed Erlang")
    nodes = Nodes.start(dir, modules)
    join(nodes)

    Screen.title("The two nodes over a tube, compared with TCP on loopback")

    for {label, kind, size, value, unit} <- [
          {"GenServer.call, round trip", :call, 0, :p50_us, " us"},
          {"messages of 64 bytes", :send, 64, :messages_per_s, "/s"},
          {"messages of 64 KiB", :send, 65_536, :bytes_per_s, "B/s"}
        ] do
      {tube, tcp, ratio} = compare(nodes, %{kind: kind, size: size}, value)

      Screen.line(
        String.pad_trailing(label, 32) <>
          "tube #{String.pad_leading(Report.number(tube) <> unit, 9)}   " <>
          "inet_tcp #{String.pad_leading(Report.number(tcp) <> unit, 9)}   " <>
          "ratio #{Report.number(ratio)}"
      )
    end

    :ok = Nodes.stop(nodes)
    :ok = RunDir.end_hub(Path.join(dir, "run"), "TERM")
    Screen.line("both nodes, their hub and their epmd have ended")
  end

  defp join(%{a: a, b: b} = nodes) do
    Screen.line("a@dom5    process #{VM.os_pid(a)}, -proto_dist inet_tcp tube")
    Screen.line("b@dom7    process #{VM.os_pid(b)}, the same")

    Nodes.within(nodes, %{name: "tube", settings: []}, fn ->
      Screen.line("a: Node.connect(:b@dom7)    true, and the connection is a tube")
      [:a@dom5] = VM.call(b, :erlang, :nodes, [])
      Screen.line("b: Node.list()              [:a@dom5]")
      {:b@dom7, os_pid} = VM.run(a, fn -> where(:b@dom7) end)
      true = os_pid == VM.os_pid(b)
      Screen.line("a: GenServer.call to b      reply from :b@dom7, process #{os_pid}")
    end)
  end

  defp compare(nodes, case, value) do
    links = for carrier <- @carriers, do: Nodes.connect(nodes, case, carrier, @ms)

    rounds =
      for _ <- 1..@rounds, do: for(link <- links, do: Nodes.measure(nodes, case, link)[value])

    [tube, tcp] = Enum.zip_with(rounds, & &1)
    %{value: value, baseline_value: baseline, ratio: ratio} = Stats.compare(tube, tcp)
    {value, baseline, ratio}
  end

  ## In a, and in b

  # An agent is a GenServer, and its function runs in its own node.
  defp where(node) do
    {:ok, agent} = :erpc.call(node, Agent, :start, [__MODULE__, :here, []])
    here = Agent.get(agent, Function, :identity, [])
    :ok = GenServer.stop(agent)
    here
  end

  @doc false
  def here, do: {node(), String.to_integer(System.pid())}
end
