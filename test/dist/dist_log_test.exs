defmodule Tube.Dist.DistLogTest do
  # What a node logs when it cannot open a tube to another node, and names with characters that are
  # not allowed in xenstore paths.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.Node, as: Peer

  @a :a@dom5

  @moduletag :apart

  setup :fresh_run_dir

  # Sends each log line of the VM as a message to the test's process there.
  defp capture(vm) do
    VM.run(vm, fn ->
      :ok = :logger.add_handler(:capture, __MODULE__, %{level: :notice, config: %{to: self()}})
    end)

    vm
  end

  @doc false
  def log(%{msg: {format, args}}, %{config: %{to: to}}) when is_list(args),
    do: send(to, {:logged, List.to_string(:io_lib.format(format, args))})

  def log(_event, _config), do: :ok

  defp logged(vm) do
    VM.run(vm, fn -> for {:logged, text} <- elem(Process.info(self(), :messages), 1), do: text end)
  end

  defp start!(c, opts),
    do: Peer.start!([run_dir: c.run_dir, modules: [__MODULE__]] ++ opts)

  test "the log says once why a node cannot be reached", c do
    a = c |> start!(name: @a, kernel: ~w(-kernel net_setuptime 3)) |> capture()

    # The store replies the same for a domain that does not exist and one that accepts no tubes.
    hidden =
      "a@dom5: no tube to node b@dom7: domain 7 does not exist, accepts no tubes, or hides its " <>
        "services from this domain (permission denied)"

    assert Peer.connect(a, :b@dom7) == false
    assert logged(a) == [hidden]

    # A retry logs nothing new.
    assert Peer.connect(a, :b@dom7) == false
    assert logged(a) == [hidden]

    # The service directory is readable, but this domain is not on the list of peers.
    start!(c, name: :b@dom7, kernel: ~w(-kernel tube_dist [{peers,[9]}]))
    assert Peer.connect(a, :b@dom7) == false
    assert [^hidden, silent] = logged(a)

    assert silent ==
             "a@dom5: no tube to node b@dom7: domain 7 does not respond: it is stopped, or " <>
               "accepts no tubes from this domain"

    # Another reason is logged, and after a connection the same reason again.
    third = start!(c, name: :c@dom9)
    nobody = "a@dom5: no tube to node d@dom9: domain 9 does not exist or has no node of that name"
    assert Peer.connect(a, :d@dom9) == false
    assert [^hidden, ^silent, text] = logged(a)
    assert text == nobody <> " (no /local/domain/9/data/tube/dist-d)"
    assert Peer.connect(a, :c@dom9)
    VM.kill9(third)
    assert Peer.connect(a, :c@dom9) == false
    assert [^hidden, ^silent, ^text, last] = logged(a)
    assert last =~ "no tube to node c@dom9"
  end

  test "a name with characters that are not allowed in the store", c do
    start!(c, name: :"b_1-x@dom7")
    a = start!(c, name: @a)
    assert Peer.connect(a, :"b_1-x@dom7")

    assert {:ok, names} =
             VM.run(a, fn ->
               {:ok, store} = Tube.Domain.store()
               Tube.Xenstore.directory(store, "/local/domain/7/data/tube")
             end)

    assert "dist-b_5f1-x" in names
  end
end
