defmodule Tube.TasksTest do
  # The mix tasks, in VMs that have no project: what they say, and whose tubes they mean.
  use ExUnit.Case, async: true
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.Node, as: Peer

  setup :fresh_run_dir

  # What a task says, or the message that it ends with.
  def task(name, args) do
    Mix.start()
    Mix.shell(Mix.Shell.Process)

    try do
      Mix.Task.rerun("tube." <> name, args)
      said()
    rescue
      error in Mix.Error -> {:error, error.message}
    end
  end

  defp said do
    receive do
      {:mix_shell, :info, [line]} -> line <> "\n" <> said()
    after
      0 -> ""
    end
  end

  # A service that gives back what it gets.
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

  test "list and show: this VM's tubes, nobody's, and another node's", %{run_dir: run_dir} do
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

    # From a node that has none but distribution's own, of another that has some.
    assert VM.run(asker, fn -> task("list", []) end) =~ "those of another: --node NAME"
    assert VM.run(asker, fn -> task("list", ["--node", "a@dom7"]) end) =~ line
    show = VM.run(asker, fn -> task("show", ~w(5 0 --node a@dom7)) end)
    assert show =~ "7 -> 5 tube 0, service e\\e[2Jcho: nock, "
    assert show =~ ~r/^  bytes +5 +5$/m
    assert VM.run(asker, fn -> task("show", ~w(5 1 --node a@dom7)) end) == "no tubes\n"

    assert {:error, "node b@dom7 cannot be reached" <> _} =
             VM.run(asker, fn -> task("list", ["--node", "b@dom7"]) end)

    assert VM.run(asker, fn -> task("list", ["--nod"]) end) ==
             {:error, "--nod is no option of this task"}
  end

  test "ping: how long it took, or why there is no tube", %{run_dir: run_dir} do
    tip = VM.start!(run_dir: run_dir, domid: 5, modules: [__MODULE__])
    vm = VM.start!(run_dir: run_dir, domid: 7, applications: [], modules: [__MODULE__])
    listen(tip, "echo")
    said = VM.run(vm, fn -> task("ping", ~w(5 --service echo --echo --count 2)) end)
    time = "[0-9.]+ (ms|us)"

    for n <- 1..2 do
      line =
        ~r"^#{n}: domain 5, tube 0, service echo: open #{time}, echo #{time}, close #{time}$"m

      assert said =~ line
    end

    VM.stop(tip)
    assert {:error, "open: " <> _} = VM.run(vm, fn -> task("ping", ["5"]) end)
    assert {:error, "mix tube.ping DOMID" <> _} = VM.run(vm, fn -> task("ping", []) end)
    assert {:error, text} = VM.run(vm, fn -> task("ping", ["five"]) end)
    assert text == ~s("five" is not the number of a domain)
  end

  test "bench: three sizes and a round trip", %{run_dir: run_dir} do
    vm = VM.start!(run_dir: run_dir, domid: 5, applications: [], modules: [__MODULE__])
    said = VM.run(vm, fn -> task("bench", ["--ms", "20"]) end)
    assert said =~ ~r/^SIZE +MSG\/S +MB\/S$/m
    for size <- [64, 1024, 65_536], do: assert(said =~ ~r/^#{size} +[1-9]\d* +\d+\.\d$/m)
    assert said =~ ~r/^64 bytes there and back: [0-9.]+ (us|ms) in the middle$/m
    assert VM.run(vm, fn -> Tube.list() end) == []
  end

  test "processes of tubes and listeners are called by what they are for", %{run_dir: run_dir} do
    vm = VM.start!(run_dir: run_dir, domid: 5)

    labels =
      VM.run(vm, fn ->
        {:ok, listener} = Tube.listen(service: "echo")
        {:ok, nock} = Tube.open(5, service: "echo")
        {:ok, tip} = Tube.accept(listener)

        for pid <- [nock.pid, tip.pid, listener] do
          {:dictionary, words} = Process.info(pid, :dictionary)
          words[:"$process_label"]
        end
      end)

    assert labels == [
             {:tube, "5:0 -> 5", "echo"},
             {:tube, "5:0 -> 5", "echo"},
             {:tube_listener, "echo"}
           ]
  end
end
