defmodule Tube.Dist.WordsTest do
  # What a node is told, in its log, when no tube leads to another; and names that xenstore has no letters
  # for.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.Node, as: Peer

  @a :a@dom5

  @moduletag :apart

  setup :fresh_run_dir

  # Its log, each text once as a message to the test's process there.
  defp heard(vm) do
    VM.run(vm, fn ->
      :ok = :logger.add_handler(:heard, __MODULE__, %{level: :notice, config: %{to: self()}})
    end)

    vm
  end

  @doc false
  def log(%{msg: {format, args}}, %{config: %{to: to}}) when is_list(args),
    do: send(to, {:said, List.to_string(:io_lib.format(format, args))})

  def log(_event, _config), do: :ok

  defp said(vm) do
    VM.run(vm, fn -> for {:said, text} <- elem(Process.info(self(), :messages), 1), do: text end)
  end

  defp start!(c, opts),
    do: Peer.start!([run_dir: c.run_dir, modules: [__MODULE__]] ++ opts)

  test "why no tube leads to a node is said, once", c do
    a = c |> start!(name: @a, kernel: ~w(-kernel net_setuptime 3)) |> heard()

    # Of a domain that is not there, or takes none of ours, the store says the same.
    hidden =
      "a@dom5: no tube to node b@dom7: domain 7 does not exist, accepts no tubes, or hides its " <>
        "services from this domain (permission denied)"

    assert Peer.connect(a, :b@dom7) == false
    assert said(a) == [hidden]

    # Who waits for a node asks again and again.
    assert Peer.connect(a, :b@dom7) == false
    assert said(a) == [hidden]

    # The door is there for all to see, but is not opened to this domain.
    start!(c, name: :b@dom7, kernel: ~w(-kernel tube_dist [{peers,[9]}]))
    assert Peer.connect(a, :b@dom7) == false
    assert [^hidden, silent] = said(a)

    assert silent ==
             "a@dom5: no tube to node b@dom7: domain 7 does not respond: it is stopped, or " <>
               "accepts no tubes from this domain"

    # Another cause is told of, and after a connection the same one may be again.
    third = start!(c, name: :c@dom9)
    nobody = "a@dom5: no tube to node d@dom9: domain 9 does not exist or has no node of that name"
    assert Peer.connect(a, :d@dom9) == false
    assert [^hidden, ^silent, text] = said(a)
    assert text == nobody <> " (no /local/domain/9/data/tube/dist-d)"
    assert Peer.connect(a, :c@dom9)
    VM.kill9(third)
    assert Peer.connect(a, :c@dom9) == false
    assert [^hidden, ^silent, ^text, last] = said(a)
    assert last =~ "no tube to node c@dom9"
  end

  test "a name with letters that the store has none for", c do
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
