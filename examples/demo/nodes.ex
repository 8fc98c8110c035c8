defmodule Tube.Demo.Nodes do
  @moduledoc false
  # The second act: two nodes of distributed Erlang join over a tube and exchange calls, and then the
  # same two do the same over TCP, for comparison.

  alias Tube.Bench.Dist.Nodes
  alias Tube.Bench.{Report, Stats}
  alias Tube.Demo.Screen
  alias Tube.Test.{RunDir, VM}

  @carriers [{"tube", []}, {"inet_tcp", false}]
  # Of each carrier in turn, so that both see the same machine.
  @rounds 3
  @ms 300

  @spec tell(Path.t(), [module]) :: :ok
  def tell(dir, modules) do
    File.mkdir_p!(dir)
    Screen.title("Second act: two nodes of distributed Erlang")
    nodes = Nodes.start(dir, modules)
    join(nodes)

    Screen.title("The same two nodes over a tube, and over TCP on loopback")

    for {what, kind, size, value, unit} <- [
          {"GenServer.call, there and back", :call, 0, :p50_us, " us"},
          {"messages of 64 bytes", :send, 64, :messages_per_s, "/s"},
          {"messages of 64 KiB", :send, 65_536, :bytes_per_s, "B/s"}
        ] do
      {tube, tcp, ratio} = compare(nodes, %{kind: kind, size: size}, value)

      Screen.line(
        String.pad_trailing(what, 32) <>
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
      Screen.line("a: GenServer.call to b      answered by :b@dom7, process #{os_pid}")
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

  # Agents are GenServers, and their functions run where they are.
  defp where(node) do
    {:ok, agent} = :erpc.call(node, Agent, :start, [__MODULE__, :here, []])
    here = Agent.get(agent, Function, :identity, [])
    :ok = GenServer.stop(agent)
    here
  end

  @doc false
  def here, do: {node(), String.to_integer(System.pid())}
end
