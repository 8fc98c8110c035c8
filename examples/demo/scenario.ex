defmodule Tube.Demo.Scenario do
  @moduledoc false
  # The steps of the demo. The functions at the end run in the two VMs; a user of the library would
  # write only these.

  alias Tube.Demo.{Handshake, Screen, OutsideView}
  alias Tube.Test.{RunDir, VM}

  @hub Path.expand("../../priv/native/tube-hub", __DIR__)
  @service "demo"
  @limit 20_000

  @pings 2_000
  @size 65_536
  @chunks 40
  @per_chunk 1_600
  # The receiver compares every byte of each message with these.
  @patterns 16

  @spec run(Path.t(), [module]) :: :ok
  def run(run_dir, modules) do
    Screen.title("Two Erlang VMs and a hub")
    {tip, nock} = start(run_dir, modules)
    listener = VM.run(tip, fn -> listen() end)
    before = resources(run_dir, [tip, nock])

    Screen.title("Handshake: what each VM does in xenstore, and when")
    {near, far} = connect(nock, tip, listener)
    expect_states(Handshake.show([tip, nock]), ~w(2 1 3 4))

    Screen.title("Messages")
    messages(nock, near, tip, far)

    Screen.title("A stream of #{div(@chunks * @per_chunk * @size, 1_048_576)} MiB")
    stream(nock, near, tip, far)

    Screen.title("The view of domain 0: xenstore-ls -fp")

    for domid <- [5, 7],
        line <- OutsideView.xenstore_ls(run_dir, data(domid)),
        do: Screen.line(line)

    show_rings([tip, nock])

    Screen.title("Close")
    closed = VM.async(tip, fn -> await_close(far) end)
    :ok = VM.run(nock, fn -> Tube.close(near) end)
    :ok = Task.await(closed, @limit)
    expect_states(Handshake.show([tip, nock]), ~w(5 6))

    Screen.title("Leftovers")
    compare(before, resources(run_dir, [tip, nock]))
    :ok = VM.stop(nock)
    :ok = VM.stop(tip)
    :ok = RunDir.end_hub(run_dir, "TERM")
    Screen.line("both VMs and the hub have ended")
  end

  @doc "Prints what helps to understand a failure."
  @spec diagnostics(Path.t()) :: :ok
  def diagnostics(run_dir) do
    case File.read(Path.join(run_dir, "hub.log")) do
      {:ok, log} -> Screen.failed("hub.log:\n" <> log)
      {:error, reason} -> Screen.failed("hub.log: #{:file.format_error(reason)}")
    end
  end

  ## Steps

  defp start(run_dir, modules) do
    # Returns when the hub is ready. Otherwise the first VM would start it.
    {out, status} = System.cmd(@hub, ["--run", run_dir, "--daemon"], stderr_to_stdout: true)
    if status != 0, do: raise("tube-hub did not start: #{out}")
    [hub] = RunDir.hub_pids(run_dir)
    Screen.line("hub       process #{hub}, serves as hypervisor and xenstore")

    vms =
      for {domid, role} <- [{5, "accepts tubes (the tip)"}, {7, "opens one (the nock)"}] do
        vm = VM.start(run_dir: run_dir, domid: domid, modules: modules)
        {:ok, ^domid} = VM.run(vm, fn -> Tube.domid() end)
        Screen.line("domain #{domid}  process #{VM.os_pid(vm)}, #{role}")
        vm
      end

    List.to_tuple(vms)
  end

  defp connect(nock, tip, listener) do
    for vm <- [tip, nock], do: Handshake.trace(vm)
    accepting = VM.async(tip, fn -> accept(listener) end)
    near = VM.run(nock, fn -> open(5) end)
    {near, Task.await(accepting, @limit)}
  catch
    kind, reason ->
      # Show how far the handshake came.
      Handshake.show([tip, nock])
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  defp messages(nock, near, tip, far) do
    hello = "hello from domain 7"
    replying = VM.async(tip, fn -> reply(far) end)
    reply = VM.run(nock, fn -> ask(near, hello) end)
    ^hello = Task.await(replying, @limit)
    Screen.line("7 to 5: #{inspect(hello)}")
    Screen.line("5 to 7: #{inspect(reply)}")

    echoing = VM.async(tip, fn -> echo(far, @pings) end)
    median = VM.run(nock, fn -> ping(near, @pings) end)
    :ok = Task.await(echoing, @limit)
    Screen.line("round trip: #{round(median / 1000)} us, median of #{@pings}")
  end

  defp stream(nock, near, tip, far) do
    nanoseconds =
      for chunk <- 1..@chunks, reduce: 0 do
        sum ->
          taking = VM.async(tip, fn -> take(far, @per_chunk) end)
          sum = sum + VM.run(nock, fn -> push(near, @per_chunk) end)
          :ok = Task.await(taking, @limit)
          rate = chunk * @per_chunk * @size / sum
          Screen.progress(chunk, @chunks, "#{:erlang.float_to_binary(rate, decimals: 2)} GB/s")
          sum
      end

    Screen.line(
      "#{@chunks * @per_chunk} messages in #{div(nanoseconds, 1_000_000)} ms, every byte compared"
    )
  end

  defp expect_states(texts, states) do
    for state <- states, not Enum.any?(texts, &(&1 =~ ~r/state = #{state}\b/)) do
      raise "no VM went to state #{state}"
    end

    :ok
  end

  # Everything that could leak: nodes, descriptors, shared memory.
  defp resources(run_dir, vms) do
    nodes = for vm <- vms, line <- OutsideView.xenstore_ls(run_dir, data(vm.domid)), do: line
    {nodes, for(vm <- vms, do: {vm.domid, OutsideView.holdings(vm)})}
  end

  # That there are none before and after only counts if there are some now.
  defp show_rings(vms) do
    for vm <- vms do
      case OutsideView.holdings(vm) do
        %{mappings: 0} ->
          raise "the kernel shows no shared memory in domain #{vm.domid}"

        %{mappings: count} ->
          Screen.line("domain #{vm.domid}: #{count} shared mappings according to the kernel")
      end
    end
  end

  defp compare({nodes, holdings}, {nodes_now, holdings_now}) do
    case nodes_now -- nodes do
      [] -> Screen.line("xenstore: no new nodes")
      more -> raise "nodes left in xenstore:\n" <> Enum.join(more, "\n")
    end

    for {{domid, was}, {domid, is}} <- Enum.zip(holdings, holdings_now) do
      Screen.line(
        "domain #{domid}: #{is.descriptors} descriptors, #{was.descriptors} before; " <>
          "#{is.mappings} shared mappings, #{was.mappings} before"
      )

      if is != was, do: raise("domain #{domid} holds more than before")
    end
  end

  defp data(domid), do: "/local/domain/#{domid}/data"

  ## In domain 5

  defp listen do
    {:ok, listener} = Tube.listen(service: @service, active: false, ring: 1_048_576)
    listener
  end

  defp accept(listener) do
    {:ok, tube} = Tube.accept(listener, @limit)
    tube
  end

  defp reply(tube) do
    {:ok, message} = Tube.recv(tube, @limit)
    :ok = Tube.send(tube, "domain 5 has received: " <> message)
    message
  end

  defp echo(_tube, 0), do: :ok

  defp echo(tube, left) do
    {:ok, message} = Tube.recv(tube, @limit)
    :ok = Tube.send(tube, message)
    echo(tube, left - 1)
  end

  defp take(tube, count) do
    patterns = patterns()
    for n <- 1..count, do: {:ok, _same} = expect(Tube.recv(tube, @limit), pattern(patterns, n))
    Tube.send(tube, "complete")
  end

  defp expect({:ok, data}, data), do: {:ok, data}

  # A tube has released everything when its process has ended.
  defp await_close(%Tube{pid: pid} = tube) do
    monitor = Process.monitor(pid)
    {:error, :closed} = Tube.recv(tube, @limit)

    receive do
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
    after
      @limit -> exit(:tube_process_stays)
    end
  end

  ## In domain 7

  defp open(peer) do
    {:ok, tube} = Tube.open(peer, service: @service, active: false, timeout: @limit)
    tube
  end

  defp ask(tube, message) do
    :ok = Tube.send(tube, message)
    {:ok, reply} = Tube.recv(tube, @limit)
    reply
  end

  # Median of the round trips in nanoseconds.
  defp ping(tube, count) do
    for _ <- 1..count do
      began = System.monotonic_time(:nanosecond)
      "ping" = ask(tube, "ping")
      System.monotonic_time(:nanosecond) - began
    end
    |> Enum.sort()
    |> Enum.at(div(count, 2))
  end

  # Nanoseconds until the other side confirms that all messages have arrived.
  defp push(tube, count) do
    patterns = patterns()
    began = System.monotonic_time(:nanosecond)
    for n <- 1..count, do: :ok = Tube.send(tube, pattern(patterns, n))
    {:ok, "complete"} = Tube.recv(tube, @limit)
    System.monotonic_time(:nanosecond) - began
  end

  ## In both

  defp patterns,
    do: for(n <- 1..@patterns, do: :binary.copy(<<n, 255 - n>>, div(@size, 2))) |> List.to_tuple()

  defp pattern(patterns, n), do: elem(patterns, rem(n, @patterns))
end
