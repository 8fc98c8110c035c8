Code.require_file("store.ex", __DIR__)

defmodule Tube.Handshake.StepsTest do
  # The founding document's steps, in its order, and their requests to the store.
  use ExUnit.Case, async: true

  alias Tube.Handshake.{Directory, Nock, TestStore, Tip}

  @nock_node "/local/domain/7/data/nock/5/0"
  @tip_node "/local/domain/5/data/tip/7/0"
  @nonce "00000000000000a0"
  @params %{me: 7, peer: 5, tid: 0, nonce: @nonce, service: "default"}
  @refs %{tx_ring_ref: 8, rx_ring_ref: 9, event_channel: 10}
  @shown %{tx_ring_bytes: 65_536, rx_ring_bytes: 4096, opened: 1_764_000_000}

  test "steps of both sides, in the order of the document" do
    {nock, ops} = Nock.new(@params)
    assert [{:timer, :limit, 5000}, {:watch, :services, path, path}, {:watch, :peer, _, _}] = ops

    # On domain 7, steps 1 to 3, as one: create, tip, state = 2.
    {nock, ops} = Nock.handle(nock, {:watch, :services})
    {nock, ops} = reply(nock, Nock, ops, [{:ok, "1"}, {:ok, "one"}])
    assert [{:store, _, {:transaction, request}}] = ops
    assert {:ensure, @nock_node, n: 7, r: 5} in request

    assert writes(request, @nock_node) == [
             tip: @tip_node,
             service: "default",
             version: "1",
             nonce: @nonce,
             state: "2"
           ]

    # Steps 4 and 5, as soon as the inbox exists; the watch of step 6 is already set.
    {nock, ops} = reply(nock, Nock, ops, [{:ok, []}])

    assert [
             {:state, 2},
             {:store, _, {:mkdir, @tip_node}},
             {:store, _, {:write, @tip_node <> "/nock", @nock_node}}
           ] = ops

    {nock, []} = reply(nock, Nock, ops, [{:error, :eacces}, {:error, :eacces}])
    {nock, ops} = Nock.handle(nock, {:watch, :peer})
    {nock, []} = reply(nock, Nock, ops, [:ok, :ok])

    # On domain 5, steps 1 and 2: the watch on `nock`, and reading it.
    {tip, ops} = Tip.new(%{me: 5, peer: 7, tid: 0, nonce: @nonce})

    assert [
             _limit,
             {:watch, :tip_node, "/local/domain/5/data/tip", @tip_node <> "/nock"},
             {:store, _, _inbox}
           ] = ops

    {tip, []} = reply(tip, Tip, ops, [{:ok, []}])
    {tip, ops} = Tip.handle(tip, {:watch, :tip_node})
    {tip, ops} = reply(tip, Tip, ops, [{:ok, @nock_node}, {:ok, ""}])

    # Steps 3 and 4: the watch on the nock's directory, state = 1.
    assert [
             {:watch, :peer, "/local/domain/7/data/nock/5", @nock_node <> "/state"},
             {:store, _, {:transaction, one}}
           ] = ops

    assert [{:guard, @nock_node <> "/nonce", [@nonce]} | _] = one
    assert writes(one, @tip_node) == [nonce: @nonce, version: "1", state: "1"]

    # "Open tube port, retrieve refs and event channel", then all of it in one transaction.
    {tip, ops} = reply(tip, Tip, ops, [{:ok, []}])
    assert [{:state, 1}, {:allocate, %{peer: 7, nonce: @nonce}}] = ops
    {tip, ops} = Tip.handle(tip, {:allocated, {:ok, Map.merge(@refs, @shown)}})
    assert [{:store, _, {:transaction, three}}] = ops

    assert writes(three, @tip_node) == [
             "tx-ring-ref": "8",
             "rx-ring-ref": "9",
             "event-channel": "10",
             "tx-ring-bytes": "65536",
             "rx-ring-bytes": "4096",
             opened: "1764000000",
             state: "3"
           ]

    {tip, [{:state, 3}]} = reply(tip, Tip, ops, [{:ok, []}])

    # On domain 7: state is 3, read the three, open the port, state = 4.
    {nock, ops} = Nock.handle(nock, {:watch, :peer})
    {nock, ops} = reply(nock, Nock, ops, [{:ok, "3"}, {:ok, @nonce}])
    assert [{:peer_state, 3} | reads] = ops

    assert for({:store, _, {:read, path}} <- reads, do: Path.basename(path)) ==
             ~w(version tx-ring-ref rx-ring-ref event-channel)

    {nock, ops} = reply(nock, Nock, reads, [{:ok, "1"}, {:ok, "8"}, {:ok, "9"}, {:ok, "10"}])
    assert [{:map, spec}] = ops
    assert spec == Map.merge(@refs, %{peer: 5, nonce: @nonce})
    {nock, ops} = Nock.handle(nock, {:mapped, :ok})
    assert [{:store, _, {:write, @nock_node <> "/state", "4"}}] = ops
    {nock, [{:state, 4}]} = reply(nock, Nock, ops, [:ok])

    # On domain 5: state = 4, then start listening.
    {tip, ops} = Tip.handle(tip, {:watch, :peer})
    {tip, ops} = reply(tip, Tip, ops, [{:ok, "4"}, {:ok, @nonce}])
    assert [{:peer_state, 4}, {:store, _, {:transaction, four}}] = ops
    assert writes(four, @tip_node) == [state: "4"]
    {_tip, ops} = reply(tip, Tip, tl(ops), [{:ok, []}])
    assert [{:state, 4}, {:cancel, :limit}, {:unwatch, :tip_node}, :start, :connected] = ops

    {nock, ops} = Nock.handle(nock, {:watch, :peer})
    {_nock, ops} = reply(nock, Nock, ops, [{:ok, "4"}, {:ok, @nonce}])
    assert [{:cancel, :limit}, {:unwatch, :services}, :start, :connected, {:peer_state, 4}] = ops
  end

  test "the opener learns why" do
    for {word, reason} <- [
          {"refused", :refused},
          {"version", :version},
          {"busy", :busy},
          {"?", :refused}
        ] do
      {nock, ops} = created()
      {nock, ops} = reply(nock, Nock, ops, [{:ok, "6"}, {:ok, @nonce}])
      {_nock, ops} = reply(nock, Nock, tl(ops), [{:ok, word}])
      assert {:failed, ^reason} = hd(ops)
    end
  end

  test "a service directory of another version, and impossible values" do
    {nock, _ops} = Nock.new(@params)
    {nock, ops} = Nock.handle(nock, {:watch, :services})
    {_nock, ops} = reply(nock, Nock, ops, [{:ok, "2"}, {:ok, "one"}])
    assert {:failed, :version} = hd(ops)

    for state <- ["", "0", "2", "4", "5", "7", "9", "x"] do
      {nock, ops} = created()
      {_nock, ops} = reply(nock, Nock, ops, [{:ok, state}, {:ok, @nonce}])
      assert {:failed, :protocol} = hd(ops)
    end

    for bad <- ["", "-1", "4294967296", "x"] do
      {nock, ops} = created()
      {nock, ops} = reply(nock, Nock, ops, [{:ok, "3"}, {:ok, @nonce}])

      {_nock, ops} = reply(nock, Nock, tl(ops), [{:ok, "1"}, {:ok, "8"}, {:ok, bad}, {:ok, "10"}])

      assert {:failed, :protocol} = hd(ops)
    end
  end

  test "a tip never follows a path other than its nock's" do
    {tip, ops} = Tip.new(%{me: 5, peer: 7, tid: 0, nonce: @nonce})
    {tip, []} = reply(tip, Tip, ops, [{:ok, []}])

    for path <- [
          "/local/domain/8/data/nock/5/0",
          "/local/domain/7/data/nock/5/1",
          "",
          @nock_node <> "/"
        ] do
      {tip, ops} = Tip.handle(tip, {:watch, :tip_node})
      {_tip, ops} = reply(tip, Tip, ops, [{:ok, path}, {:ok, ""}])
      assert {:failed, :protocol} in ops

      for {:store, _, {:transaction, list}} <- ops,
          do: assert(writes(list, @tip_node)[:error] == "protocol")
    end
  end

  test "a waiting tip reads its peer's node when any domain has ended" do
    {tip, ops} = Tip.new(%{me: 5, peer: 7, tid: 0, nonce: @nonce})
    {tip, []} = reply(tip, Tip, ops, [{:ok, []}])
    {tip, ops} = Tip.handle(tip, {:watch, :peer})

    assert [@nock_node <> "/state", @nock_node <> "/nonce"] ==
             for({:store, _, {:read, p}} <- ops, do: p)

    # Another domain's end.
    {tip, ops} = reply(tip, Tip, ops, [{:ok, "2"}, {:ok, @nonce}])
    refute List.keymember?(ops, :failed, 0)
    # The peer's.
    {tip, ops} = Tip.handle(tip, {:watch, :peer})
    {_tip, ops} = reply(tip, Tip, ops, [{:error, :eacces}, {:error, :eacces}])
    assert {:failed, :peer_down} in ops
  end

  describe "the service directory" do
    setup do: {:ok, store: TestStore.new([5, 7, 9])}

    test "is readable by every domain and writable by none", %{store: store} do
      {{:ok, _}, store, _} =
        TestStore.request(store, :c, 5, Directory.publish_service(5, "chat", "one"))

      assert {{:ok, "one"}, _, _} =
               TestStore.request(store, :c, 9, {:read, "/local/domain/5/data/tube/chat"})

      assert {{:ok, "1"}, _, _} =
               TestStore.request(store, :c, 9, {:read, "/local/domain/5/data/tube/version"})

      for path <- ["", "/chat", "/version", "/new"],
          request <- [:rm, :mkdir],
          do:
            assert(
              {{:error, :eacces}, _, _} =
                TestStore.request(store, :c, 9, {request, "/local/domain/5/data/tube#{path}"})
            )
    end

    test "has one instance for a service, which a live one keeps", %{
      store: store
    } do
      {{:ok, _}, store, _} =
        TestStore.request(store, :c, 5, Directory.publish_service(5, "chat", "one"))

      assert {{:error, :guard}, _, _} =
               TestStore.request(store, :c, 5, Directory.publish_service(5, "chat", "two"))

      assert {{:ok, _}, _, _} =
               TestStore.request(
                 store,
                 :c,
                 5,
                 Directory.publish_service(5, "chat", "two", ["one"])
               )

      assert {{:error, :guard}, _, _} =
               TestStore.request(store, :c, 5, Directory.withdraw_service(5, "chat", "two"))
    end

    test "goes with its last service", %{store: empty} do
      {_, store, _} = TestStore.request(empty, :c, 5, Directory.publish_service(5, "chat", "one"))
      {_, store, _} = TestStore.request(store, :c, 5, Directory.publish_service(5, "dist", "one"))

      {_, store, _} =
        TestStore.request(store, :c, 5, Directory.withdraw_service(5, "chat", "one"))

      assert {{:error, _}, _, _} =
               TestStore.request(store, :c, 7, {:read, "/local/domain/5/data/tube/chat"})

      {_, store, _} =
        TestStore.request(store, :c, 5, Directory.withdraw_service(5, "dist", "one"))

      assert store == empty
    end
  end

  test "parents that are right already are not written, so that no watch fires" do
    store = TestStore.new([5, 7])
    request = {:transaction, Directory.ensure_inbox(5, 7)}
    {{:ok, _}, store, [_ | _]} = TestStore.request(store, :c, 5, request)
    assert store["/local/domain/5/data/tip/7"] == {"", [n: 5, b: 5, b: 7]}
    assert {{:ok, _}, ^store, []} = TestStore.request(store, :c, 5, request)
  end

  # A nock that has created the tip's node and is reading the tip's state.
  defp created do
    {nock, _ops} = Nock.new(@params)
    {nock, ops} = Nock.handle(nock, {:watch, :services})
    {nock, ops} = reply(nock, Nock, ops, [{:ok, "1"}, {:ok, "one"}])
    {nock, ops} = reply(nock, Nock, ops, [{:ok, []}])
    {nock, []} = reply(nock, Nock, ops, [:ok, :ok])
    Nock.handle(nock, {:watch, :peer})
  end

  # Replies to the requests among `ops`, in order; returns the result of the last reply.
  defp reply(m, role, ops, results) do
    refs = for {:store, ref, _request} <- ops, do: ref
    assert length(refs) == length(results)

    Enum.reduce(Enum.zip(refs, results), {m, []}, fn {ref, result}, {m, []} ->
      role.handle(m, {:store, ref, result})
    end)
  end

  defp writes(requests, dir) do
    for {:write, path, value} <- requests,
        Path.dirname(path) == dir,
        do: {String.to_atom(Path.basename(path)), value}
  end
end
