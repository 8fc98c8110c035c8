defmodule Tube.Dist.CarriersTest do
  # Tubes beside other carriers: in one cluster, nodes on this machine connect by tube, others by
  # TCP or TLS.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.{Eventually, Loopback}
  alias Tube.Test.Node, as: Peer

  # The nodes need a private epmd and private host names.
  @moduletag :hub

  @a :a@dom5
  @b :b@dom7
  # Has no tubes, like a node on another machine.
  @c :c@elsewhere

  setup :fresh_run_dir

  setup c do
    loopback =
      Loopback.start(
        ["dom5", "dom7", "dom5.here.test", "dom7.there.test", "elsewhere"],
        c.run_dir
      )

    on_exit(fn -> if Port.info(loopback.epmd), do: Loopback.stop(loopback) end)
    %{env: loopback.env}
  end

  defp node!(c, name, carriers, kernel \\ []) do
    Peer.start!(name: name, run_dir: c.run_dir, env: c.env, carriers: carriers, kernel: kernel)
  end

  defp carrier(vm, node) do
    case VM.call(vm, :net_kernel, :node_info, [node, :address]) do
      {:ok, {:net_address, _address, _host, protocol, _family}} -> protocol
      {:error, _not_yet} -> nil
    end
  end

  test "three nodes: a and b by tube, c by TCP, whichever side connects", c do
    [a, b] = for name <- [@a, @b], do: node!(c, name, ["inet_tcp", "tube"])
    third = node!(c, @c, ["inet_tcp"])
    assert Peer.connect(a, @b)
    # c connects to a, and b to c, unless :global connects them first.
    assert Peer.connect(third, @a)
    assert Peer.connect(b, @c)

    for {vm, others} <- [
          {a, [{@b, :tube}, {@c, :tcp}]},
          {b, [{@a, :tube}, {@c, :tcp}]},
          {third, [{@a, :tcp}, {@b, :tcp}]}
        ],
        {node, protocol} <- others,
        do: Eventually.true!(fn -> carrier(vm, node) == protocol end)

    # All nodes know the name of one, over either carrier.
    {:yes, pid} = VM.run(third, fn -> {:global.register_name(:far, self()), self()} end)

    for vm <- [a, b],
        do: Eventually.true!(fn -> VM.call(vm, :global, :whereis_name, [:far]) == pid end)

    assert VM.call(b, :erpc, :call, [@c, :erlang, :node, []]) == @c
    assert VM.call(third, :erpc, :call, [@b, :erlang, :node, []]) == @b
  end

  test "a peer that reads nothing: senders wait or get an error, as over TCP", c do
    kernel = ["+zdbbl", "1024"]
    [a, b] = for name <- [@a, @b], do: node!(c, name, ["inet_tcp", "tube"], kernel)

    [over_tube, over_tcp] =
      for {carrier, connect?} <- [tube: true, tcp: false] do
        VM.call(a, :application, :set_env, [:kernel, :tube_dist, [connect: connect?]])
        assert Peer.connect(a, @b)
        assert carrier(a, @b) == carrier
        account = full(a, b)
        VM.call(a, :erlang, :disconnect_node, [@b])
        for vm <- [a, b], do: Eventually.true!(fn -> VM.call(vm, :erlang, :nodes, []) == [] end)
        account
      end

    assert over_tube == over_tcp

    assert over_tube == [
             send_nosuspend: false,
             small: false,
             nosuspend: :nosuspend,
             noconnect: :nosuspend,
             monitored: {:busy_dist_port, :port},
             waits: :suspended,
             killed: :killed,
             arrived: :in_order
           ]
  end

  # What a sees while b is stopped, and when it continues.
  defp full(a, b) do
    sink = VM.run(b, fn -> spawn(__MODULE__, :sink, [[]]) end)
    :ok = VM.signal(b, "STOP")

    {sent, account} =
      VM.run(a, fn ->
        :erlang.system_monitor(self(), [:busy_dist_port])
        data = &{&1, :binary.copy(<<7>>, 1_048_576)}
        # More than the carrier and the node's queue hold.
        sent = Enum.find(0..99, &(not :erlang.send_nosuspend(sink, data.(&1))))

        options = fn options -> :erlang.send(sink, data.(:never), options) end

        refused = [
          small: :erlang.send_nosuspend(sink, {:never, ""}),
          nosuspend: options.([:nosuspend])
        ]

        noconnect = options.([:nosuspend, :noconnect])

        waiting = spawn(fn -> send(sink, data.(sent)) end)
        Process.put(:waiting, Process.monitor(waiting))

        {what, port} =
          receive do: ({:monitor, ^waiting, :busy_dist_port, port} -> {:busy_dist_port, port})

        {:status, status} = Process.info(waiting, :status)

        # A waiting sender can be killed. Its message may have been accepted before.
        {ended, monitor} = spawn_monitor(fn -> send(sink, data.(sent + 1)) end)
        receive do: ({:monitor, ^ended, :busy_dist_port, _port} -> Process.exit(ended, :kill))
        killed = receive do: ({:DOWN, ^monitor, :process, ^ended, reason} -> reason)
        :erlang.system_monitor(:undefined)

        {sent + 1,
         [send_nosuspend: false] ++
           refused ++
           [
             noconnect: noconnect,
             monitored: {what, is_port(port) && :port},
             waits: status,
             killed: killed
           ]}
      end)

    :ok = VM.signal(b, "CONT")

    VM.run(a, fn ->
      waiting = Process.get(:waiting)
      receive do: ({:DOWN, ^waiting, :process, _pid, :normal} -> send(sink, {:numbers, self()}))

      receive do
        {:numbers, numbers} ->
          in_order? = numbers in [Enum.to_list(0..(sent - 1)), Enum.to_list(0..sent)]
          account ++ [arrived: if(in_order?, do: :in_order, else: numbers)]
      end
    end)
  end

  @doc false
  def sink(numbers) do
    receive do
      {:numbers, pid} -> send(pid, {:numbers, Enum.reverse(numbers)})
      {number, _data} -> sink([number | numbers])
    end
  end

  test "two machines may each have a domain of the same number", c do
    long = fn name, carriers ->
      args = ["-proto_dist" | carriers] ++ ~w(-start_epmd false -name #{name} -setcookie tubes)
      VM.start!(run_dir: c.run_dir, env: c.env, args: args, applications: [])
    end

    a = long.("a@dom5.here.test", ["inet_tcp", "tube"])
    # There is a domain 7 here too, but this one is on another machine.
    there = long.("b@dom7.there.test", ["inet_tcp", "tube"])
    assert Peer.connect(a, :"b@dom7.there.test")
    assert carrier(a, :"b@dom7.there.test") == :tcp
    assert carrier(there, :"a@dom5.here.test") == :tcp
  end

  test "with connect: false a node uses the next carrier, and still accepts tubes", c do
    [a, b] =
      for name <- [@a, @b],
          do:
            node!(
              c,
              name,
              ["inet_tcp", "tube"],
              ~w(-connect_all false -kernel dist_auto_connect never)
            )

    set = fn value ->
      VM.call(a, :application, :set_env, [:kernel, :tube_dist, [connect: value]])
    end

    for {value, by, protocol} <- [{false, a, :tcp}, {false, b, :tube}, {true, a, :tube}] do
      set.(value)
      other = if by == a, do: @b, else: @a
      assert Peer.connect(by, other)
      assert carrier(by, other) == protocol
      VM.call(by, :erlang, :disconnect_node, [other])
      for vm <- [a, b], do: Eventually.true!(fn -> VM.call(vm, :erlang, :nodes, []) == [] end)
    end
  end

  test "tube before another carrier is refused, and the other works alone", c do
    {text, 0} =
      System.cmd(
        "erl",
        Enum.map(VM.code_path(), &to_string/1) ++
          ~w(-proto_dist tube inet_tcp -sname a@dom5 -start_epmd false -noshell) ++
          ["-eval", "io:format(\"~p\", [net_kernel:get_state()]), halt()."],
        env: [{"TUBE_RUN_DIR", c.run_dir} | c.env],
        stderr_to_stdout: true
      )

    assert text =~ "tube must be the last of several carriers: -proto_dist inet_tcp tube"
    assert text =~ "started => static"
  end

  test "with TLS: b by tube, c by TLS, and no connection without a certificate", c do
    kernel = ["-ssl_dist_optfile", certificates(c.run_dir)]
    [a, b] = for name <- [@a, @b], do: node!(c, name, ["inet_tls", "tube"], kernel)
    third = node!(c, @c, ["inet_tls"], kernel)
    assert Peer.connect(a, @b)
    assert Peer.connect(third, @a)

    for {vm, node} <- [{a, @c}, {third, @b}],
        do: Eventually.true!(fn -> carrier(vm, node) == :tls end)

    for {vm, node} <- [{a, @b}, {b, @a}], do: assert(carrier(vm, node) == :tube)
    assert VM.call(third, :erpc, :call, [@b, :erlang, :node, []]) == @b

    bare = node!(c, :d@elsewhere, ["inet_tcp"])
    assert Peer.connect(bare, @a) == false
  end

  # A private certificate authority, and one key for all nodes.
  defp certificates(dir) do
    names = for host <- [~c"dom5", ~c"dom7", ~c"elsewhere"], do: {:dNSName, host}
    subject_alt_name = {:Extension, {2, 5, 29, 17}, false, names}
    # Newer OTP releases refuse some of the defaults: SHA-1, and keys that fit none of their
    # ciphers.
    p256 = {:namedCurve, {1, 2, 840, 10045, 3, 1, 7}}
    root = [digest: :sha256, key: p256]
    chain = %{root: root, intermediates: [], peer: root ++ [extensions: [subject_alt_name]]}

    %{server_config: config} =
      :public_key.pkix_test_data(%{server_chain: chain, client_chain: chain})

    {type, key} = config[:key]

    for {name, entries} <- [
          {"cert.pem", [{:Certificate, config[:cert], :not_encrypted}]},
          {"key.pem", [{type, key, :not_encrypted}]},
          {"ca.pem", for(der <- config[:cacerts], do: {:Certificate, der, :not_encrypted})}
        ],
        do: File.write!(Path.join(dir, name), :public_key.pem_encode(entries))

    files =
      for {option, name} <- [certfile: "cert.pem", keyfile: "key.pem", cacertfile: "ca.pem"],
          do: {option, dir |> Path.join(name) |> to_charlist()}

    options = [
      server: files ++ [verify: :verify_peer, fail_if_no_peer_cert: true],
      client: files ++ [verify: :verify_peer]
    ]

    path = Path.join(dir, "ssl_dist.conf")
    File.write!(path, :io_lib.format(~c"~p.~n", [options]))
    path
  end
end
