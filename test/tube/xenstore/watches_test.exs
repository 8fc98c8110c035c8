defmodule Tube.Xenstore.WatchesTest do
  use ExUnit.Case, async: true

  import Tube.Test.Properties
  import Tube.Test.StoreCounts, only: [watch_count: 1]
  import :proper_types, only: [integer: 2, list: 1, non_empty: 1]

  alias Tube.Xenstore.Watches
  alias Tube.Xenstore.Wire.Path

  test "subscriptions to one path share one watch" do
    {:register, wire, watches} = Watches.add(Watches.new(), key(1), "/a", "/a/b")
    assert {:wait, watches} = Watches.add(watches, key(2), "/a", "/a/c")
    assert {keys, watches} = Watches.confirm(watches, wire)
    assert Enum.sort(keys) == [key(1), key(2)]
    assert {:watched, watches} = Watches.add(watches, key(3), "/a", "/a")
    assert watch_count(watches) == 1
    assert {:register, other, watches} = Watches.add(watches, key(4), "/b", "/b")
    assert other != wire
    assert {:more, watches} = Watches.remove(watches, key(1))
    assert {:more, watches} = Watches.remove(watches, key(2))
    assert {{:unwatch, "/a", ^wire}, watches} = Watches.remove(watches, key(3))
    assert {{:unwatch, "/b", ^other}, watches} = Watches.remove(watches, key(4))
    assert %{watches | next: 1} == Watches.new()
  end

  test "a process can use a token only once at a time" do
    {:register, _wire, watches} = Watches.add(Watches.new(), key(:token), "/a", "/a")
    assert Watches.add(watches, key(:token), "/b", "/b") == {:error, :eexist}
    {_unwatch, watches} = Watches.remove(watches, key(:token))
    assert {:register, _wire, _watches} = Watches.add(watches, key(:token), "/b", "/b")
  end

  test "a watch that is set again has a new token, and events of the old one are dropped" do
    {:register, old, watches} = Watches.add(Watches.new(), key(:token), "/a", "/a")
    {_unwatch, watches} = Watches.remove(watches, key(:token))
    {:register, new, watches} = Watches.add(watches, key(:token), "/a", "/a")
    assert old != new
    {[_key], watches} = Watches.confirm(watches, new)
    {[], watches} = Watches.open(watches, key(:token), true)
    assert {[], watches} = Watches.event(watches, old, "/a")
    assert {[_message], _watches} = Watches.event(watches, new, "/a")
  end

  test "the interest alone decides who gets an event" do
    segment = map(integer(0, 2), &Enum.at(~w(a ab b), &1))
    path = map(non_empty(list(segment)), &("/" <> Enum.join(&1, "/")))

    check({list(path), path}, fn {interests, changed} ->
      keys = for {interest, n} <- Enum.with_index(interests), do: {key(n), interest}

      watches =
        Enum.reduce(keys, Watches.new(), fn {key, interest}, watches ->
          watches |> Watches.add(key, "/", interest) |> Tuple.to_list() |> List.last()
        end)

      {all, watches} = Watches.confirm(watches, "tube-1")
      assert length(all) == length(keys)
      # Take their first events.
      watches =
        Enum.reduce(
          all,
          watches,
          &(&2 |> Watches.open(&1, true) |> elem(1) |> Watches.acknowledge(&1) |> elem(1))
        )

      {messages, _watches} = Watches.event(watches, "tube-1", changed)
      receivers = for {_pid, {:xenstore_watch, token, ^changed}} <- messages, do: token

      expected =
        for {{_pid, token}, interest} <- keys, Path.related?(interest, changed), do: token

      assert Enum.sort(receivers) == Enum.sort(expected)
    end)
  end

  describe "a first event" do
    test "is the store's own for the first subscription" do
      {:register, wire, watches} = Watches.add(Watches.new(), key(:token), "/a", "/a")
      {[_key], watches} = Watches.confirm(watches, wire)
      assert {[], watches} = Watches.open(watches, key(:token), true)

      assert {[{_pid, {:xenstore_watch, :token, "/a"}}], _watches} =
               Watches.event(watches, wire, "/a")
    end

    test "that precedes the store's confirmation is kept until then" do
      {:register, wire, watches} = Watches.add(Watches.new(), key(:token), "/a", "/a")
      {[], watches} = Watches.event(watches, wire, "/a")
      {[_key], watches} = Watches.confirm(watches, wire)

      assert {[{_pid, {:xenstore_watch, :token, "/a"}}], _watches} =
               Watches.open(watches, key(:token), true)
    end

    test "is ours for later subscriptions, and when the store had the watch already" do
      {:register, wire, watches} = Watches.add(Watches.new(), key(1), "/a", "/a")
      {:wait, watches} = Watches.add(watches, key(2), "/a", "/a/b")
      {[_, _], watches} = Watches.confirm(watches, wire)

      assert {[{_pid, {:xenstore_watch, 1, "/a"}}], watches} =
               Watches.open(watches, key(1), false)

      assert {[{_pid, {:xenstore_watch, 2, "/a"}}], watches} = Watches.open(watches, key(2), true)
      {:watched, watches} = Watches.add(watches, key(3), "/a", "/a/c")

      assert {[{_pid, {:xenstore_watch, 3, "/a"}}], _watches} =
               Watches.open(watches, key(3), true)
    end
  end

  test "one event at a time, others are merged until it is acknowledged" do
    {watches, wire} = watching()
    {[_told], watches} = Watches.event(watches, wire, "/a/1")

    watches =
      Enum.reduce(1..100, watches, fn n, watches ->
        {[], watches} = Watches.event(watches, wire, "/a/#{rem(n, 2)}")
        watches
      end)

    {[first], watches} = Watches.acknowledge(watches, key(:token))
    {[second], watches} = Watches.acknowledge(watches, key(:token))
    assert Enum.sort(for {_, {_, _, path}} <- [first, second], do: path) == ["/a/0", "/a/1"]
    assert {[], watches} = Watches.acknowledge(watches, key(:token))
    assert {[], watches} = Watches.acknowledge(watches, key(:token))
    assert {[_again], _watches} = Watches.event(watches, wire, "/a/1")
  end

  test "a watch that the store refuses is dropped" do
    {:register, wire, watches} = Watches.add(Watches.new(), key(:token), "/a", "/a")
    assert {[_key], watches} = Watches.refuse(watches, wire)
    assert %{watches | next: 1} == Watches.new()
    assert {[], ^watches} = Watches.confirm(watches, wire)
    assert {[], ^watches} = Watches.refuse(watches, wire)
    assert {[], ^watches} = Watches.open(watches, key(:token), true)
    assert {[], ^watches} = Watches.acknowledge(watches, key(:token))
    assert {:more, ^watches} = Watches.remove(watches, key(:token))
  end

  defp watching do
    {:register, wire, watches} = Watches.add(Watches.new(), key(:token), "/a", "/a")
    {[_key], watches} = Watches.confirm(watches, wire)
    {[], watches} = Watches.open(watches, key(:token), true)
    {watches, wire}
  end

  defp key(n), do: {self(), n}
end
