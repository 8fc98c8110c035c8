defmodule Tube.TasksTest do
  # The mix tasks in VMs without a project: their output, and whose tubes they list.
  use ExUnit.Case, async: true
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.Node, as: Peer

  setup :fresh_run_dir

  # The output of a task, or the message of its error.
  def task(name, args) do
    Mix.start()
    Mix.shell(Mix.Shell.Process)

    try do
      Mix.Task.rerun("tube." <> name, args)
      output()
    rescue
      error in Mix.Error -> {:error, error.message}
    end
  end

  defp output do
    receive do
      {:mix_shell, :info, [line]} -> line <> "\n" <> output()
    after
      0 -> ""
    end
  end

  # An echo service.
  def serve(listener) do
    with {:ok, tube} <- Tube.accept(listener) do
      echo(tube)
      Tube.close(tube)
      serve(listener)
    end
  end

  defp echo(tube) do
    with {:ok, data} <- Tube.recv(tube), :ok <- Tube.send(tube, data), do: echo(tube)
  end

  defp listen(vm, service) do
    VM.run(vm, fn ->
      {:ok, listener} = Tube.listen(service: service, active: false)
      spawn_link(fn -> serve(listener) end)
      :ok
    end)
  end

  test "list and show: tubes of this VM, of another node, and none", %{run_dir: run_dir} do
    tip = VM.start!(run_dir: run_dir, domid: 5, modules: [__MODULE__])
    node = Peer.start!(name: :a@dom7, run_dir: run_dir, modules: [__MODULE__])
    asker = Peer.start!(name: :mix@dom9, run_dir: run_dir, modules: [__MODULE__])
    listen(tip, "e\e[2Jcho")

    VM.run(node, fn ->
      {:ok, tube} = Tube.open(5, service: "e\e[2Jcho", active: false)
      :ok = Tube.send(tube, "hello")
      {:ok, "hello"} = Tube.recv(tube)
      Process.put(:tube, tube)
    end)

    line = ~r/^7\* +0 +5 +e\\e\[2Jcho +65536 +1 +5 +1 +5 +0$/m
    list = VM.run(node, fn -> task("list", []) end)
    assert list =~ ~r/^NOCK  TID  TIP  SERVICE +RING   SENT  BYTES  RECEIVED  BYTES  FULL$/m
    assert list =~ line
    assert VM.run(tip, fn -> task("list", []) end) =~ ~r/^7 +0 +5\* /m

    # From a node with no tubes but those of distribution.
    assert VM.run(asker, fn -> task("list", []) end) =~ "for another VM use --node NAME"
    assert VM.run(asker, fn -> task("list", ["--node", "a@dom7"]) end) =~ line
    show = VM.run(asker, fn -> task("show", ~w(5 0 --node a@dom7)) end)
    assert show =~ "7 -> 5 tube 0, service e\\e[2Jcho: nock, "
    assert show =~ ~r/^  bytes +5 +5$/m
    assert VM.run(asker, fn -> task("show", ~w(5 1 --node a@dom7)) end) == "no tubes\n"

    assert {:error, "node b@dom7 cannot be reached" <> _} =
             VM.run(asker, fn -> task("list", ["--node", "b@dom7"]) end)

    assert VM.run(asker, fn -> task("list", ["--nod"]) end) ==
             {:error, "unknown option --nod"}
  end

  test "ping prints how long it took, or why there is no tube", %{run_dir: run_dir} do
    tip = VM.start!(run_dir: run_dir, domid: 5, modules: [__MODULE__])
    vm = VM.start!(run_dir: run_dir, domid: 7, applications: [], modules: [__MODULE__])
    listen(tip, "echo")
    output = VM.run(vm, fn -> task("ping", ~w(5 --service echo --echo --count 2)) end)
    time = "[0-9.]+ (ms|us)"

    for n <- 1..2 do
      line =
        ~r"^#{n}: domain 5, tube 0, service echo: open #{time}, echo #{time}, close #{time}$"m

      assert output =~ line
    end

    VM.stop(tip)
    assert {:error, "open: " <> _} = VM.run(vm, fn -> task("ping", ["5"]) end)
    assert {:error, "mix tube.ping DOMID" <> _} = VM.run(vm, fn -> task("ping", []) end)
    assert {:error, text} = VM.run(vm, fn -> task("ping", ["five"]) end)
    assert text == ~s("five" is not the number of a domain)
  end

  test "bench prints three sizes and a round trip", %{run_dir: run_dir} do
    vm = VM.start!(run_dir: run_dir, domid: 5, applications: [], modules: [__MODULE__])
    output = VM.run(vm, fn -> task("bench", ["--ms", "20"]) end)
    assert output =~ ~r/^SIZE +MSG\/S +MB\/S$/m
    for size <- [64, 1024, 65_536], do: assert(output =~ ~r/^#{size} +[1-9]\d* +\d+\.\d$/m)
    assert output =~ ~r/^round trip, 64 bytes: [0-9.]+ (us|ms) median$/m
    assert VM.run(vm, fn -> Tube.list() end) == []
  end

  test "processes of tubes and listeners have labels", %{run_dir: run_dir} do
    vm = VM.start!(run_dir: run_dir, domid: 5)

    labels =
      VM.run(vm, fn ->
        {:ok, listener} = Tube.listen(service: "echo")
        {:ok, nock} = Tube.open(5, service: "echo")
        {:ok, tip} = Tube.accept(listener)

        for pid <- [nock.pid, tip.pid, listener] do
          {:dictionary, dictionary} = Process.info(pid, :dictionary)
          dictionary[:"$process_label"]
        end
      end)

    assert labels == [
             {:tube, "5:0 -> 5", "echo"},
             {:tube, "5:0 -> 5", "echo"},
             {:tube_listener, "echo"}
           ]
  end
end
