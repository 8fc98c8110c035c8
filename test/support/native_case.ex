defmodule Tube.Test.NativeCase do
  @moduledoc """
  Tests of the NIF and the driver alone, without processes of Tube: two domains in this VM, on a hub
  of their own. Tests run one at a time, because they count live native objects.
  """

  use ExUnit.CaseTemplate

  alias Tube.Native
  alias Tube.Test.{Eventually, RunDir}

  @max_message 64 * 1024 * 1024

  using do
    quote do
      import Tube.Test.NativeCase
      alias Tube.Native
      alias Tube.Test.Eventually

      @moduletag timeout: 60_000
    end
  end

  setup_all do
    run_dir = RunDir.create()
    on_exit(fn -> RunDir.remove(run_dir) end)
    :ok = Tube.Domain.Hub.start(run_dir)
    :ok = Native.Driver.load()
    {:ok, one, 1} = Native.attach(:local, run_dir, 1)
    {:ok, two, 2} = Native.attach(:local, run_dir, 2)
    %{run_dir: run_dir, one: one, two: two}
  end

  setup do
    # Tubes of earlier tests may still be closing.
    Eventually.true!(fn -> Native.live_counts().links == 0 end)
    before = Native.live_counts()
    # Ports that a test leaves open close with its process.
    on_exit(fn -> all_gone!(before) end)
    %{before: before}
  end

  @doc "Waits until no more native objects are alive than `before`."
  def all_gone!(before) do
    Eventually.true!(fn ->
      Enum.all?(Native.live_counts(), fn {what, n} -> n <= before[what] end)
    end)
  end

  @doc """
  Both ends of a new tube. The calling process is the connection process of both ends. It also owns
  both by default; the options `:tip` and `:nock` set other owners.
  """
  def tube(context, options \\ []) do
    order = Keyword.get(options, :order, 4)
    limit = Keyword.get(options, :max_message, @max_message)
    nonce = System.unique_integer([:positive])
    {:ok, tip, refs} = Native.link_share(context.one, 2, order, order, nonce, limit)

    {:ok, nock} =
      Native.link_map(
        context.two,
        1,
        refs.tx_ring_ref,
        refs.rx_ring_ref,
        refs.event_channel,
        nonce,
        limit
      )

    mode = Keyword.get(options, :mode, :tube)

    {start(tip, Keyword.get(options, :tip, self()), mode),
     start(nock, Keyword.get(options, :nock, self()), mode)}
  end

  defp start(id, owner, mode) do
    port = Native.Driver.open_link(id)
    :ok = Native.Driver.start(id, port, self(), owner, mode)
    %{id: id, port: port}
  end

  @doc "Sends a whole message; waits for space like Tube."
  def send_all(id, message, cont \\ 0) do
    case Native.send(id, message, cont) do
      :ok ->
        :ok

      {:more, cont} ->
        send_all(id, message, cont)

      {:wait, cont} ->
        assert_receive {:"$tube_space", ^id}, 5_000
        send_all(id, message, cont)

      error ->
        error
    end
  end

  @doc "Receives a message; waits for data like Tube."
  def recv_all(id) do
    case Native.recv(id) do
      :more ->
        recv_all(id)

      :wait ->
        assert_receive {:"$tube_data", ^id}, 5_000
        recv_all(id)

      result ->
        result
    end
  end

  @doc "Sends until the ring is full."
  def fill(id, message \\ :binary.copy("x", 1000)) do
    case Native.send(id, message) do
      :ok -> fill(id, message)
      {:wait, 0} -> :ok
    end
  end

  @doc "The `%Tube{}` of an end, as the driver makes it."
  def handle(end_), do: %{__struct__: Tube, id: end_.id, pid: self(), port: end_.port}

  @doc "A process that calls functions for `ask/2`, as another owner or sender."
  def helper do
    spawn_link(fn -> help() end)
  end

  defp help do
    receive do
      {:do, from, fun} ->
        send(from, {:done, self(), fun.()})
        help()

      :stop ->
        :ok
    end
  end

  @doc "The result of `fun`, called by `helper`."
  def ask(helper, fun) do
    send(helper, {:do, self(), fun})
    assert_receive {:done, ^helper, result}, 10_000
    result
  end

  @doc "Kills `pid` and waits until it is dead."
  def kill(pid) do
    monitor = Process.monitor(pid)
    Process.unlink(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}, 5_000
  end
end
