defmodule Tube.Xen.IntruderTest do
  # Domain 9 attacks a tube between 5 and 7, by all that any domain may ask of xenstore, grants and
  # event channels.
  use ExUnit.Case, async: false
  use Tube.Test.VM

  import Tube.Test.RunDir
  alias Tube.Test.Lab

  @moduletag :xen
  @moduletag timeout: 300_000

  setup :fresh_run_dir

  setup %{run_dir: run_dir} do
    [tip, nock] = for domid <- [5, 7], do: VM.start!(run_dir: run_dir, domid: domid)

    accepting =
      VM.async(tip, fn ->
        {:ok, listener} = Tube.listen(active: false, max_per_peer: 8, timeout: 10_000)
        Process.put(:listener, listener)
        {:ok, tube} = Tube.accept(listener, 60_000)
        tube
      end)

    {:ok, theirs} = VM.run(nock, fn -> Tube.open(5, active: false, timeout: 60_000) end)
    %{tip: tip, nock: nock, ours: Task.await(accepting, 60_000), theirs: theirs}
  end

  test "it reads, forges, deletes and squats nothing", c do
    # Both halves, the inbox, the service directory: nodes that exist, and nodes that do not.
    paths =
      for path <-
            ~w(tip tip/7 tip/7/0 tip/7/0/state tip/7/0/nonce tip/7/0/tx-ring-ref tip/7/0/error
               tip/7/1 tip/7/1/nock tip/9 tip/9/0/nock) ++
              ~w(nock nock/7 tube/default/x),
          do: "/local/domain/5/data/#{path}"

    nock_paths =
      for path <- ~w(nock nock/5 nock/5/0 nock/5/0/state nock/5/0/nonce nock/5/1 tip tip/5),
          do: "/local/domain/7/data/#{path}"

    directory = ~w(/local/domain/5/data/tube /local/domain/5/data/tube/default
                   /local/domain/5/data/tube/version)

    before = tree()

    printed =
      Lab.sh(9, """
      try() { "$@" >/dev/null 2>&1 && echo "$*"; }
      for path in #{Enum.join(paths ++ nock_paths, " ")}; do
        try xenstore-read $path
        try xenstore-list $path
      done
      for path in #{Enum.join(paths ++ nock_paths ++ directory, " ")}; do
        try xenstore-write $path forged
        try xenstore-rm $path
        try xenstore-chmod $path n9
      done
      try xenstore-read /local/domain/5/data/tube/version
      """)

    # oxenstored reports success for the removal of a node that does not exist.
    nothing? = fn
      "xenstore-rm " <> path -> not (before =~ ~r/^#{path} /m)
      _other -> false
    end

    # Everybody may read the service directory, which shows that the script does report successes.
    assert printed |> String.split("\n") |> Enum.reject(nothing?) ==
             ["xenstore-read /local/domain/5/data/tube/version"]

    assert tree() == before
    assert_talk(c)
  end

  test "it maps none of their pages", c do
    {:ok, nonce} = read(c.tip, "nonce")

    [tx, rx, port] =
      for key <- ~w(tx-ring-ref rx-ring-ref event-channel) do
        {:ok, value} = read(c.tip, key)
        String.to_integer(value)
      end

    intruder = VM.start!(run_dir: c.run_dir, domid: 9)

    VM.run(intruder, fn ->
      {:ok, %{platform: platform}} = Tube.Domain.attach()
      nonce = String.to_integer(nonce, 16)
      assert {:error, _} = Tube.Native.link_map(platform, 5, tx, rx, port, nonce, 4096)
      # With a port of its own, the pages are still not for it.
      {:ok, id, refs} = Tube.Native.link_share(platform, 5, 0, 0, nonce, 4096)

      assert {:error, _} =
               Tube.Native.link_map(platform, 5, tx, rx, refs.event_channel, nonce, 4096)

      :ok = Tube.Native.link_free(id)
    end)

    assert_talk(c)
  end

  test "many open requests, and ones that name another domain's nodes, delay nobody", c do
    Lab.sh(9, """
    xenstore-write data/nock/5/x ''
    xenstore-chmod data/nock n9 r5
    xenstore-chmod data/nock/5 n9 r5
    n=0
    while [ $n -lt 24 ]; do
      k=data/nock/5/$n
      xenstore-write $k/tip /local/domain/5/data/tip/$([ $((n % 2)) = 0 ] && echo 9/$n || echo 7/0) \\
        $k/service default $k/version 1 $k/nonce 0123456789abcdef $k/state 2
      n=$((n + 1))
    done
    xenstore-list data/nock/5 | wc -l
    """)
    |> then(&assert &1 == "25")

    accepting = VM.async(c.tip, fn -> Tube.accept(Process.get(:listener), 60_000) end)

    assert {:ok, _} = VM.run(c.nock, fn -> Tube.open(5, active: false, timeout: 60_000) end)

    assert {:ok, _} = Task.await(accepting, 60_000)
    assert_talk(c)
    # None was let in, and no nodes were created but its own.
    assert VM.run(c.tip, fn -> length(Tube.list()) end) == 2
    Lab.sh(9, "xenstore-rm data/nock")
  end

  defp read(vm, key) do
    VM.run(vm, fn ->
      {:ok, store} = Tube.Domain.store()
      Tube.Xenstore.read(store, "/local/domain/5/data/tip/7/0/#{key}")
    end)
  end

  defp tree, do: Lab.sh(0, "for id in 5 7; do xenstore-ls -fp /local/domain/$id/data; done")

  defp assert_talk(c) do
    VM.run(c.nock, fn -> :ok = Tube.send(c.theirs, "ping") end)
    assert VM.run(c.tip, fn -> Tube.recv(c.ours, 30_000) end) == {:ok, "ping"}
    VM.run(c.tip, fn -> :ok = Tube.send(c.ours, "pong") end)
    assert VM.run(c.nock, fn -> Tube.recv(c.theirs, 30_000) end) == {:ok, "pong"}
  end
end
