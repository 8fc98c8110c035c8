defmodule Tube.BusyPollTest do
  # Polling instead of notifications. native/link tests when to poll and when to sleep.
  use Tube.Test.NativeCase, async: false

  alias Tube.Connection.BusyPoller
  alias Tube.Options

  # The longest time that the option allows, in microseconds.
  @most 10_000

  defp polled(context, options \\ []) do
    {tip, nock} = tube(context, options)
    :ok = Native.link_poll(nock.id, @most)
    {tip, nock, %Tube{pid: self(), port: nock.port, id: nock.id}}
  end

  # Starts a poller of an active tube. This process survives its end.
  defp poller(tube) do
    Process.flag(:trap_exit, true)
    :ok = Native.Driver.active(tube.port, -1)
    {:ok, poller} = BusyPoller.start_link(tube)
    poller
  end

  defp notifications(id) do
    {:ok, info} = Native.info(id)
    info.tx.bells
  end

  test "a passive owner polls before it sleeps, and gets no notification meanwhile", context do
    {tip, nock, _tube} = polled(context)
    assert Native.recv(nock.id) == :poll
    before = notifications(tip.id)
    :ok = Native.send(tip.id, "one")
    assert Native.recv(nock.id) == {:ok, "one"}
    assert Native.recv_many(nock.id, 10) == :poll
    :ok = Native.send(tip.id, "two")
    assert Native.recv_many(nock.id, 10) == {:ok, ["two"]}
    assert notifications(tip.id) == before
    :ok = Native.link_poll(nock.id, 0)
    assert Native.recv(nock.id) == :wait
    assert Native.link_poll(1, 0) == {:error, :closed}
  end

  test "recv keeps its time limit, and receives while it polls or sleeps", context do
    {tip, _nock, tube} = polled(context)
    assert Tube.recv(tube, 0) == {:error, :timeout}
    assert Tube.recv(tube, 1) == {:error, :timeout}
    assert Tube.recv(tube, 30) == {:error, :timeout}
    assert Tube.recv_many(tube, 5, 0) == {:error, :timeout}
    me = self()

    sender =
      spawn_link(fn ->
        for n <- 1..300 do
          receive do: (:go -> :ok)
          # From time to time a pause longer than the receiver polls.
          if rem(n, 100) == 0, do: :timer.sleep(20)
          :ok = send_all(tip.id, <<n::32>>)
        end

        send(me, :all_sent)
      end)

    for n <- 1..300 do
      send(sender, :go)
      assert Tube.recv(tube, 5_000) == {:ok, <<n::32>>}
    end

    assert_receive :all_sent, 5_000
    :ok = Native.shutdown(tip.id)
    assert Tube.recv(tube, 5_000) == {:error, :closed}
    refute_received {:"$tube_data", _id}
  end

  test "an active owner gets the messages that a poller finds", context do
    {tip, _nock, tube} = polled(context)
    poller = poller(tube)

    for n <- 1..500 do
      if rem(n, 100) == 0, do: :timer.sleep(20)
      :ok = send_all(tip.id, <<n::32>>)
      assert_receive {:tube, ^tube, <<^n::32>>}, 5_000
    end

    long = :binary.copy("long", 500_000)
    :ok = send_all(tip.id, long)
    assert_receive {:tube, ^tube, ^long}, 5_000

    # Passive for a while, then active again.
    :ok = Native.Driver.active(tube.port, 0)
    :ok = send_all(tip.id, "taken")
    assert Tube.recv(tube, 5_000) == {:ok, "taken"}
    :ok = Native.Driver.active(tube.port, 2)
    for text <- ["one", "two"], do: :ok = send_all(tip.id, text)
    for text <- ["one", "two"], do: assert_receive({:tube, ^tube, ^text}, 5_000)
    assert_receive {:tube_passive, ^tube}, 5_000

    :ok = Native.Driver.active(tube.port, -1)
    :ok = send_all(tip.id, "last")
    :ok = Native.shutdown(tip.id)
    assert_receive {:tube, ^tube, "last"}, 5_000
    assert_receive {:tube_closed, ^tube}, 5_000
    assert Process.alive?(poller)
  end

  test "a poller ends with its tube, asleep or not", context do
    for most <- [@most, 0] do
      {_tip, nock, tube} = polled(context)
      :ok = Native.link_poll(nock.id, most)
      poller = poller(tube)
      Port.close(nock.port)
      assert_receive {:EXIT, ^poller, :normal}, 5_000
      assert Native.poll(nock.id) == {:error, :closed}
      assert Native.Driver.deliver(nock.port) == {:error, :closed}
    end
  end

  test "without its poller a tube uses notifications again", context do
    {tip, _nock, tube} = polled(context)
    poller = poller(tube)
    Process.exit(poller, :kill)
    assert_receive {:EXIT, ^poller, :killed}, 5_000
    :ok = Native.send(tip.id, "while nobody polls")
    assert BusyPoller.stop(nil, tube) == nil
    assert_receive {:tube, ^tube, "while nobody polls"}, 5_000
    :ok = Native.send(tip.id, "by notification")
    assert_receive {:tube, ^tube, "by notification"}, 5_000

    # The same when it is stopped on purpose.
    poller = BusyPoller.set(nil, tube, {:adaptive, @most})
    assert BusyPoller.set(poller, tube, {:adaptive, 10}) == poller
    assert BusyPoller.set(poller, tube, :off) == nil
    :ok = Native.send(tip.id, "again")
    assert_receive {:tube, ^tube, "again"}, 5_000
    refute_received {:EXIT, ^poller, _reason}
  end

  test "the option is checked" do
    for poll <- [:off, {:adaptive, 1}, {:adaptive, @most}] do
      assert %{poll: ^poll} = Options.validate!([poll: poll], :setopts)
    end

    for poll <- [nil, true, :on, 5, {:adaptive, 0}, {:adaptive, @most + 1}, {:always, 5}] do
      assert_raise ArgumentError, ~r/:poll.*allowed is :off, or {:adaptive, /, fn ->
        Options.validate!([poll: poll], :open)
      end
    end
  end
end
