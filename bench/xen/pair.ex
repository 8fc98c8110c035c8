defmodule Tube.Bench.Xen.Pair do
  @moduledoc false
  # Two nodes in guests with links as in `bin/bench tube`, connections as in `bin/bench dist`, and
  # programs for libxenvchan. Only one VM of a domain can have tubes, so the same two serve for
  # links and connections.

  alias Tube.Bench.{Carrier, Cases, Dist, Pair, Rings, Stats}
  alias Tube.Bench.Dist.Nodes
  alias Tube.Bench.Xen.{Guests, Vchan}
  alias Tube.Test.VM

  defstruct [:nodes, :links]

  # Without busy-waiting of schedulers: it takes a processor that domain 0 needs to forward packets,
  # and makes TCP several times slower. The long setup time is for the first connection, which loads
  # code: a busy machine needs more than the default of seven seconds.
  @flags ~w(+sbwt none +sbwtdcpu none +sbwtdio none -kernel net_setuptime 60)

  @type t :: %__MODULE__{nodes: Nodes.t(), links: Pair.t()}

  @spec start(Path.t(), [module]) :: t
  def start(dir, modules) do
    :ok = Guests.prepare()
    nodes = Nodes.start_both(modules, [buffer: Carrier.Netfront.buffer()], flags: @flags)

    for vm <- [nodes.a, nodes.b],
        do: {:ok, _started} = VM.call(vm, :application, :ensure_all_started, [:tube])

    %__MODULE__{nodes: nodes, links: %Pair{near: nodes.b, far: nodes.a, dir: dir}}
  end

  @spec stop(t) :: :ok
  def stop(pair), do: Nodes.stop(pair.nodes)

  @spec connect(t, Cases.t() | Dist.Cases.t(), {String.t(), term}, pos_integer) :: map
  def connect(pair, %Dist.Cases{} = case, carrier, ms),
    do: Nodes.connect(pair.nodes, case, carrier, ms)

  def connect(_pair, case, {name, Vchan}, ms) do
    vchan = Vchan.open(Carrier.buffer())
    :ok = Rings.equal!(name, vchan.rings)
    run = &elem(Vchan.run(vchan, case.kind, case.size, &1), 0)
    %{name: name, vchan: vchan, count: Stats.calibrate(ms * 1_000_000, 64, run)}
  end

  def connect(pair, case, carrier, ms), do: Pair.connect(pair.links, case, carrier, ms)

  @spec measure(t, Cases.t() | Dist.Cases.t(), map) :: %{atom => float}
  def measure(pair, %Dist.Cases{} = case, link), do: Nodes.measure(pair.nodes, case, link)

  def measure(_pair, case, %{vchan: vchan, count: count}) do
    {nanoseconds, samples} = Vchan.run(vchan, case.kind, case.size, count)
    bytes_per_s = count * case.size / nanoseconds * 1.0e9
    Map.merge(%{bytes_per_s: bytes_per_s}, Stats.latencies(samples))
  end

  def measure(pair, case, link), do: Pair.measure(pair.links, case, link)

  @spec disconnect(t, map) :: :ok
  def disconnect(_pair, %{vchan: vchan}), do: Vchan.close(vchan)
  def disconnect(pair, %{carrier: _} = link), do: Pair.disconnect(pair.links, link)
  def disconnect(pair, link), do: Nodes.disconnect(pair.nodes, link)
end
