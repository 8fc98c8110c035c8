defmodule Tube.Bench.Pair do
  @moduledoc false
  # Two VMs with a link between them for each carrier of a case.

  alias Tube.Bench.{Host, Rings, Stats, Work}
  alias Tube.Test.VM

  defstruct [:near, :far, :dir]

  @type t :: %__MODULE__{near: VM.t(), far: VM.t(), dir: Path.t()}

  # A measurement that takes longer hangs.
  @deadline 120_000

  # Domain 7 opens, domain 5 accepts.
  @spec start(Path.t(), [module]) :: t
  def start(dir, modules) do
    run_dir = Path.join(dir, "run")
    File.mkdir_p!(run_dir)
    File.chmod!(run_dir, 0o700)
    start = &VM.start(run_dir: run_dir, domid: &1, modules: modules)
    [far, near] = Enum.map([5, 7], start)
    %__MODULE__{near: near, far: far, dir: dir}
  end

  @spec stop(t) :: :ok
  def stop(%__MODULE__{near: near, far: far}) do
    :ok = VM.stop(near)
    :ok = VM.stop(far)
  end

  @doc "Connects a carrier for a case, and finds the number of messages that take `ms`."
  @spec connect(t, Tube.Bench.Cases.t(), {String.t(), module}, pos_integer) :: map
  def connect(pair, case, {name, carrier}, ms) do
    # Each link has its own processes at both ends, so no mailbox is shared.
    as = :"#{case.kind}_#{case.size}_#{name}"
    dir = pair.dir
    {listener, address} = VM.run(pair.far, fn -> carrier.listen("#{as}", dir) end, as: as)
    link = %{name: name, carrier: carrier, as: as, listener: listener, address: address}

    link =
      if case.kind == :opens do
        Map.merge(link, %{near: nil, far: nil})
      else
        accepting = VM.async(pair.far, fn -> carrier.accept(listener) end, as: as)
        near = VM.run(pair.near, fn -> carrier.open(address) end, as: as)
        far = Task.await(accepting, @deadline)

        for {vm, %Tube{} = tube} <- [{pair.near, near}, {pair.far, far}],
            do: :ok = Rings.check!(vm, tube)

        Map.merge(link, %{near: near, far: far})
      end

    count = Stats.calibrate(ms * 1_000_000, 64, &elem(run(pair, case, link, &1), 0))
    Map.put(link, :count, max(count, 64))
  end

  @spec disconnect(t, map) :: :ok
  def disconnect(pair, %{carrier: carrier, as: as} = link) do
    if link.near do
      VM.run(pair.near, fn -> carrier.close(link.near) end, as: as)
      VM.run(pair.far, fn -> carrier.close(link.far) end, as: as)
    end

    VM.run(pair.far, fn -> carrier.close_listener(link.listener) end, as: as)
  end

  @doc "Measures once: all values that a case can report."
  @spec measure(t, Tube.Bench.Cases.t(), map) :: %{atom => float}
  def measure(pair, case, link) do
    before = Host.vm_seconds([pair.near, pair.far])
    {nanoseconds, samples} = run(pair, case, link, link.count)
    spent = Host.vm_seconds([pair.near, pair.far]) - before
    seconds = nanoseconds / 1.0e9

    Map.merge(
      %{
        messages_per_s: link.count / seconds,
        bytes_per_s: link.count * case.size / seconds,
        cpu_s_per_gb: spent / max(link.count * case.size / 1.0e9, 1.0e-9)
      },
      Stats.latencies(samples)
    )
  end

  defp run(pair, %{kind: :rtt, size: size}, %{carrier: carrier} = link, count) do
    samples =
      both(
        pair,
        link,
        fn -> Work.ping(carrier, link.near, size, count) end,
        fn -> Work.echo(carrier, link.far, count) end
      )

    {Enum.sum(samples), samples}
  end

  defp run(pair, %{kind: :opens}, %{carrier: carrier} = link, count) do
    took =
      both(
        pair,
        link,
        fn -> Work.opens(carrier, link.address, count) end,
        fn -> Work.accepts(carrier, link.listener, count) end
      )

    {took, []}
  end

  defp run(pair, %{kind: kind, size: size}, %{carrier: carrier} = link, count) do
    took =
      both(
        pair,
        link,
        fn -> Work.near(kind, carrier, link.near, size, count) end,
        fn -> Work.far(kind, carrier, link.far, size, count) end
      )

    {took, []}
  end

  defp both(pair, link, near, far) do
    opts = [as: link.as, timeout: @deadline]
    far_side = VM.async(pair.far, far, opts)
    result = VM.run(pair.near, near, opts)
    :ok = Task.await(far_side, @deadline)
    result
  end
end
