defmodule Tube.Bench.Dist.Nodes do
  @moduledoc false
  # Two nodes, connected over a tube or over TCP as their current settings demand. Two nodes have
  # one connection at a time, so each measurement makes a new one between the same nodes.

  alias Tube.Bench.Dist.Work
  alias Tube.Bench.{Host, Rings, Stats}
  alias Tube.Test.{Loopback, Node, VM}

  defstruct [:a, :b, :loopback]

  @type t :: %__MODULE__{a: VM.t(), b: VM.t(), loopback: Loopback.t() | nil}

  @a :a@dom5
  @b :b@dom7
  @deadline 120_000
  # Number of senders of :many, which all send the same number of messages.
  @senders 50

  @spec start(Path.t(), [module]) :: t
  def start(dir, modules) do
    run_dir = Path.join(dir, "run")
    File.mkdir_p!(run_dir)
    File.chmod!(run_dir, 0o700)
    loopback = Loopback.start(["dom5", "dom7"], dir)

    # Good options for the baseline: OTP's default read buffer has 1460 bytes.
    buffers = for key <- [:sndbuf, :recbuf, :buffer], do: {key, 1_048_576}
    nodes = start_both(modules, buffers, run_dir: run_dir, env: loopback.env)
    %{nodes | loopback: loopback}
  end

  @doc """
  Starts both nodes. `sockets` are options of their sockets, `opts` are options of
  `Tube.Test.Node.start/1`, and `:flags` in `opts` are flags for `erl`.
  """
  @spec start_both([module], keyword, keyword) :: t
  def start_both(modules, sockets, opts) do
    options = :io_lib.format(~c"~w", [[nodelay: true] ++ sockets]) |> to_string()
    {flags, opts} = Keyword.pop(opts, :flags, [])

    [a, b] =
      for {name, domid} <- [{@a, 5}, {@b, 7}] do
        Node.start(
          [
            name: name,
            domid: domid,
            modules: modules,
            carriers: ["inet_tcp", "tube"],
            # Prevents connections that the bench has not made.
            kernel:
              ~w(-connect_all false -kernel dist_auto_connect never) ++
                ~w(-kernel inet_dist_connect_options #{options}) ++
                ~w(-kernel inet_dist_listen_options #{options}) ++ flags
          ] ++ opts
        )
      end

    %__MODULE__{a: a, b: b}
  end

  @spec stop(t) :: :ok
  def stop(nodes) do
    :ok = VM.stop(nodes.a)
    :ok = VM.stop(nodes.b)
    if nodes.loopback, do: Loopback.stop(nodes.loopback), else: :ok
  end

  @doc "Finds the number of messages that take `ms` over a carrier."
  @spec connect(t, map, {String.t(), keyword | false}, pos_integer) :: map
  def connect(nodes, case, {name, settings}, ms) do
    link = %{name: name, settings: settings, count: 0}

    within(nodes, link, fn ->
      count = Stats.calibrate(ms * 1_000_000, @senders, &elem(run(nodes, case, &1), 0))
      %{link | count: max(div(count, @senders), 1) * @senders}
    end)
  end

  @doc "Measures once: all values that a case can report."
  @spec measure(t, map, map) :: %{atom => float}
  def measure(nodes, case, link) do
    within(nodes, link, fn ->
      # Warm up the buffers and schedulers of the new connection.
      run(nodes, case, max(div(link.count, 10), @senders))
      before = Host.vm_seconds([nodes.a, nodes.b])
      {nanoseconds, samples} = run(nodes, case, link.count)
      bytes = link.count * case.size

      Map.merge(
        %{
          messages_per_s: link.count / nanoseconds * 1.0e9,
          bytes_per_s: bytes / nanoseconds * 1.0e9,
          cpu_s_per_gb:
            (Host.vm_seconds([nodes.a, nodes.b]) - before) / max(bytes / 1.0e9, 1.0e-9)
        },
        Stats.latencies(samples)
      )
    end)
  end

  @spec disconnect(t, map) :: :ok
  def disconnect(_nodes, _link), do: :ok

  ## Over one carrier

  @doc "Calls `measure` while the nodes are connected over `link`."
  @spec within(t, map, (() -> result)) :: result when result: term
  def within(nodes, link, measure) do
    settings = link.settings || [connect: false]

    for vm <- [nodes.a, nodes.b],
        do: :ok = VM.call(vm, :application, :set_env, [:kernel, :tube_dist, settings])

    true = connected?(nodes, 3)
    ^link = check_carrier(nodes, link)
    result = measure.()

    # Wait until both sides have noticed, or the next connection could collide with the old one.
    for vm <- [nodes.a, nodes.b], do: VM.run(vm, fn -> :net_kernel.monitor_nodes(true) end)
    VM.call(nodes.a, :erlang, :disconnect_node, [@b])

    for {vm, other} <- [{nodes.a, @b}, {nodes.b, @a}] do
      VM.run(vm, fn ->
        receive do: ({:nodedown, ^other} -> :net_kernel.monitor_nodes(false))
      end)
    end

    result
  end

  # An attempt between guests may time out if the machine is busy.
  defp connected?(_nodes, 0), do: false

  defp connected?(nodes, attempts),
    do: Node.connect(nodes.a, @b) == true or connected?(nodes, attempts - 1)

  # Makes sure that the connection uses the expected carrier.
  defp check_carrier(nodes, link) do
    {:ok, address} = VM.call(nodes.a, :net_kernel, :node_info, [@b, :address])
    {:net_address, _address, _host, protocol, _family} = address

    for vm <- [nodes.a, nodes.b],
        tube <- VM.call(vm, Tube, :list, []),
        do: :ok = Rings.check!(vm, tube)

    if protocol == :tube == (link.settings != false), do: link, else: protocol
  end

  defp run(nodes, %{kind: kind, size: size}, count),
    do: VM.run(nodes.a, fn -> Work.run(kind, @b, size, count) end, timeout: @deadline)
end
