defmodule Tube.Xenstore.PipelineTest do
  use ExUnit.Case, async: true

  import Tube.Test.FakeStore, only: [packet: 3, watch_event: 2]
  import Tube.Test.Properties
  import Tube.Test.StoreCounts, only: [pipeline_counts: 1]
  import :proper_types, only: [integer: 2, list: 1]

  alias Tube.Xenstore.Pipeline
  alias Tube.Xenstore.Wire.Codec

  # The number of outstanding requests, and of open transactions.
  @limits {16, 1}

  test "a guest's limit of outstanding requests is kept" do
    {window, _transactions} = @limits
    assert window < 20
    pipeline = Enum.reduce(1..50, Pipeline.new(4096), &push(&2, &1, {:read, "/a"}))
    {sent, pipeline} = send_all(pipeline)
    assert length(sent) == window
    [{:read, id, 0, _} | _] = sent

    {:ok, [{:reply, 1, :read, {:ok, "v"}}], pipeline} =
      Pipeline.feed(pipeline, packet(:read, id, "v"))

    assert {[_one], pipeline} = send_all(pipeline)
    assert %{in_flight: ^window} = pipeline_counts(pipeline)
  end

  test "replies find their requests, in any order and in any pieces" do
    check({integer(1, 14), list(integer(1, 1000)), cuts()}, fn {count, shuffle, cuts} ->
      {sent, pipeline} =
        1..count
        |> Enum.reduce(Pipeline.new(4096), &push(&2, &1, {:read, "/#{&1}"}))
        |> send_all()

      assert sent |> Enum.map(&elem(&1, 1)) |> Enum.uniq() |> length() == count

      # Each reply holds its own path, in an order that PropEr chose.
      order = sent |> Enum.zip(shuffle ++ List.duplicate(0, count)) |> Enum.sort_by(&elem(&1, 1))
      bytes = for {{:read, id, 0, payload}, _} <- order, into: "", do: packet(:read, id, payload)

      {events, _pipeline} =
        Enum.flat_map_reduce(cut(bytes, cuts), pipeline, fn piece, pipeline ->
          {:ok, events, pipeline} = Pipeline.feed(pipeline, piece)
          {events, pipeline}
        end)

      assert length(events) == count
      for {:reply, owner, :read, {:ok, payload}} <- events, do: assert(payload == "/#{owner}\0")
    end)
  end

  test "open transactions are limited; others start as these end" do
    {_window, limit} = @limits
    assert limit < 10
    pipeline = Enum.reduce(1..8, Pipeline.new(4096), &push(&2, &1, :transaction_start))
    pipeline = push(pipeline, :reader, {:read, "/a"})
    {sent, pipeline} = send_all(pipeline)
    starts = for {:transaction_start, id, 0, _} <- sent, do: id
    assert length(starts) == limit
    # Plain requests do not wait for them.
    assert Enum.any?(sent, &match?({:read, _, 0, _}, &1))

    pipeline =
      Enum.reduce(starts, pipeline, fn id, pipeline ->
        {:ok, [_], pipeline} = Pipeline.feed(pipeline, packet(:transaction_start, id, "#{id}\0"))
        pipeline
      end)

    assert {[], pipeline} = send_all(pipeline)

    {[{:transaction_end, id, 1, _}], pipeline} =
      pipeline |> push(:one, {:transaction_end, true}, 1) |> send_all()

    {:ok, [_], pipeline} = Pipeline.feed(pipeline, packet(:error, id, "EAGAIN\0"))
    assert {[{:transaction_start, id, 0, _}], pipeline} = send_all(pipeline)
    # One that could not be opened makes room for the next.
    {:ok, [_], pipeline} = Pipeline.feed(pipeline, packet(:error, id, "ENOSPC\0"))
    assert {[{:transaction_start, _, 0, _}], _pipeline} = send_all(pipeline)
  end

  test "waiting transactions that are not wanted any more do not block the others" do
    {_window, limit} = @limits
    pipeline = Enum.reduce(1..(limit + 3), Pipeline.new(4096), &push(&2, &1, :transaction_start))
    {sent, pipeline} = send_all(pipeline)
    {_, id, _, _} = hd(sent)
    {:ok, [_], pipeline} = Pipeline.feed(pipeline, packet(:error, id, "ENOSPC\0"))
    {[_only], pipeline} = send_all(pipeline, &(&1 == limit + 3))
    assert %{queued: 0} = pipeline_counts(pipeline)
  end

  test "requests that are not wanted any more are not sent, except the end of a transaction" do
    pipeline =
      Pipeline.new(4096)
      |> push(:gone, {:write, "/a", "v"})
      |> push(:gone, {:transaction_end, true}, 3)
      |> push(:here, {:read, "/a"})

    assert {[{:transaction_end, _, 3, "T\0"}, {:read, _, 0, "/a\0"}], _} =
             send_all(pipeline, &(&1 == :here))
  end

  test "a payload over the transport's limit is refused" do
    value = String.duplicate("x", 100)
    assert {:ok, _} = Pipeline.push(Pipeline.new(103), :me, {:write, "/a", value}, 0)
    assert {:error, :e2big} = Pipeline.push(Pipeline.new(102), :me, {:write, "/a", value}, 0)
    assert {:error, :einval} = Pipeline.push(Pipeline.new(102), :me, {:read, "a//"}, 0)
  end

  test "a watch event is recognized by its type, whatever its ids are" do
    assert {:ok, [{:watch, "/a", "t"}], _} =
             Pipeline.feed(Pipeline.new(4096), watch_event("/a", "t"))

    {:ok, odd} = Codec.encode(:watch_event, 0xDEAD, 0xBEEF, "/a\0t\0")
    assert {:ok, [{:watch, "/a", "t"}], _} = Pipeline.feed(Pipeline.new(4096), odd)
    # A later Xen may add more.
    assert {:ok, [{:watch, "/a", "t"}], _} =
             Pipeline.feed(Pipeline.new(4096), packet(:watch_event, 0, "/a\0t\0more\0"))
  end

  test "malformed input is an error" do
    {[{:read, id, 0, _}], pipeline} = Pipeline.new(4096) |> push(:me, {:read, "/a"}) |> send_all()

    for bytes <- [
          packet(:read, id + 1, "v"),
          packet(:write, id, "OK\0"),
          packet(:error, id + 1, "ENOENT\0"),
          packet(:watch_event, 0, "/a\0"),
          packet(:watch_event, 0, "/a\0t"),
          packet(:watch_event, 0, ""),
          <<99::32-native, id::32-native, 0::32-native, 0::32-native>>
        ] do
      assert {:error, text} = Pipeline.feed(pipeline, bytes)
      assert is_binary(text)
    end

    assert {:ok, [_], pipeline} = Pipeline.feed(pipeline, packet(:read, id, "v"))
    assert {:error, _twice} = Pipeline.feed(pipeline, packet(:read, id, "v"))
  end

  test "a transaction without a number is an error" do
    {[{_, id, 0, _}], pipeline} =
      Pipeline.new(4096) |> push(:me, :transaction_start) |> send_all()

    for number <- ["", "\0", "0\0", "x\0", "-1\0", "4294967296\0"] do
      assert {:error, text} = Pipeline.feed(pipeline, packet(:transaction_start, id, number))
      assert text =~ "without a number"
    end
  end

  test "request ids wrap around and skip those still outstanding" do
    pipeline = %{Pipeline.new(4096) | next_id: 1}
    {[{:read, 1, 0, _}], pipeline} = pipeline |> push(:old, {:read, "/a"}) |> send_all()

    pipeline =
      %{pipeline | next_id: 0xFFFFFFFF} |> push(:a, {:read, "/a"}) |> push(:b, {:read, "/b"})

    assert {[{:read, 0xFFFFFFFF, 0, _}, {:read, 2, 0, _}], _pipeline} = send_all(pipeline)
  end

  defp push(pipeline, owner, request, tx \\ 0) do
    {:ok, pipeline} = Pipeline.push(pipeline, owner, request, tx)
    pipeline
  end

  defp send_all(pipeline, wanted? \\ fn _ -> true end, sent \\ []) do
    case Pipeline.next(pipeline, wanted?) do
      {:send, bytes, pipeline} ->
        {:ok, [packet], ""} = Codec.feed("", bytes)
        send_all(pipeline, wanted?, [packet | sent])

      {:idle, pipeline} ->
        {Enum.reverse(sent), pipeline}
    end
  end
end
