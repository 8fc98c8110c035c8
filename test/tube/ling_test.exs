defmodule Tube.LingTest do
  # The API of LING, in one VM that opens tubes to itself.
  use Tube.Test.OneVM, async: false

  test "open, accept, command, data, close, as in LING's document", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair(0)
      send(nock, {self(), {:command, ["to ", "the tip"]}})
      assert_receive {^tip, {:data, "to the tip"}}, 1_000
      assert true = :tube.port_command(tip, "to the nock")
      assert_receive {^nock, {:data, "to the nock"}}, 1_000

      # The number is in use for as long as the tube is.
      assert {:error, :exists} = :tube.open(5, 0)
      {other, _tip} = pair(1)
      assert other != nock

      monitor = Process.monitor(nock)
      assert :ok = :tube.close(nock)
      assert_receive {:DOWN, ^monitor, :process, ^nock, :normal}, 6_000
      assert {:error, :closed} = :tube.close(nock)
      assert {_again, _tip} = pair(0)
    end)
  end

  test "no packet is dropped: without room it waits, however it was sent", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair(10)
      owner = self()
      page = :binary.copy("p", 4_000)
      # The new owner does not read yet.
      reader = Task.async(fn -> receive(do: (:read -> read(tip, 200))) end)
      true = :tube.port_connect(tip, reader.pid)

      writer =
        Task.async(fn ->
          for n <- 1..100, do: true = :tube.port_command(nock, [<<n>>, page])
          send(owner, :written)
        end)

      assert_receive :written, 5_000
      for n <- 101..200, do: send(nock, {self(), {:command, [<<n>>, page]}})
      send(reader.pid, :read)
      assert Enum.to_list(1..200) == Task.await(reader, 10_000)
      Task.await(writer)
    end)
  end

  test "can_send returns how many; any number of processes may wait in it", %{vm: vm} do
    VM.run(vm, fn ->
      {nock, tip} = pair(20)
      assert {:ok, n} = :tube.can_send(nock)
      assert n in 10..16
      assert :ok = :tube.can_send_async(nock)
      assert_receive {:can_send, ^nock, ^n}, 1_000

      # The reader is passive, the ring is full, and packets wait.
      {:ok, %{tip: tube}} = handle(tip)
      :ok = Tube.setopts(tube, active: false)
      for _ <- 1..40, do: send(nock, {self(), {:command, :binary.copy("x", 4_096)}})
      asking = for _ <- 1..3, do: Task.async(fn -> :tube.can_send(nock) end)
      for _ <- 1..2, do: :ok = :tube.can_send_async(nock)
      refute_received {:can_send, _, _}
      assert false == :tube.port_command(nock, "no", [:nosuspend])

      for _ <- 1..40, do: {:ok, _} = Tube.recv(tube, 1_000)
      for task <- asking, do: assert({:ok, _} = Task.await(task))
      for _ <- 1..2, do: assert_receive({:can_send, ^nock, room} when room > 0, 1_000)
      assert true == :tube.port_command(nock, "yes", [:nosuspend])
      assert {:ok, "yes"} = Tube.recv(tube, 1_000)
    end)
  end

  test "can_send of a tube that ends, and of one that has ended", %{vm: vm} do
    VM.run(vm, fn ->
      Process.flag(:trap_exit, true)
      {nock, tip} = pair(30)
      {:ok, %{tip: tube}} = handle(tip)
      :ok = Tube.setopts(tube, active: false)
      for _ <- 1..40, do: send(nock, {self(), {:command, :binary.copy("x", 4_096)}})
      asking = Task.async(fn -> :tube.can_send(nock) end)
      :ok = :tube.can_send_async(nock)
      assert :ok = :tube.close(tip)
      assert_receive {:can_send, ^nock, :closed}, 6_000
      assert {:error, :closed} = Task.await(asking, 6_000)
      assert_receive {:EXIT, ^nock, :normal}, 6_000

      assert {:error, :closed} = :tube.can_send(nock)
      :ok = :tube.can_send_async(nock)
      assert_receive {:can_send, ^nock, :closed}, 1_000
      assert_raise ArgumentError, fn -> :tube.port_command(nock, "late") end
      Process.flag(:trap_exit, false)
    end)
  end

  test "invalid domains and numbers, and a caller that is not the owner", %{vm: vm} do
    VM.run(vm, fn ->
      for {domid, tid} <- [{-1, 0}, {70_000, 0}, {:five, 0}, {5, -1}, {5, "0"}],
          do: assert({:error, :badarg} == :tube.open(domid, tid))

      {nock, _tip} = pair(40)
      assert {:error, :not_owner} = Task.await(Task.async(:tube, :close, [nock]))
      assert_raise ArgumentError, fn -> :tube.port_command(nock, [:not, :iodata]) end
    end)
  end

  test "a program for LING runs, compiled with one more option", %{vm: vm} do
    source = ~c"""
    -module(ling_program).
    -export([ask/2, answer/0]).
    ask(Domid, Tid) ->
      {ok,Tube} = tube:open(Domid, Tid),
      true = port_command(Tube, <<"ping">>),
      receive {Tube,{data,Data}} -> erlang:port_close(Tube), Data end.
    answer() ->
      {ok,Tube} = tube:accept(),
      receive {Tube,{data,<<"ping">>}} -> Tube ! {self(),{command,[<<"po">>,"ng"]}} end,
      unlink(Tube),
      receive after infinity -> ok end.
    """

    {:ok, tokens, _} = :erl_scan.string(source)

    forms =
      for form <- Enum.chunk_while(tokens, [], &chunk/2, &{:cont, &1}), form != [] do
        {:ok, form} = :erl_parse.parse_form(form)
        form
      end

    {:ok, :ling_program, code} = :compile.forms(forms, [{:parse_transform, :tube}])
    {:module, _} = VM.call(vm, :code, :load_binary, [:ling_program, ~c"ling_program.erl", code])

    VM.run(vm, fn ->
      answering = spawn(:ling_program, :answer, [])
      assert apply(:ling_program, :ask, [5, 50]) == "pong"
      Process.exit(answering, :kill)
    end)
  end

  defp chunk({:dot, _} = token, form), do: {:cont, Enum.reverse([token | form]), []}
  defp chunk(token, form), do: {:cont, [token | form]}

  # The caller owns both ends.
  @doc false
  def pair(tid) do
    me = self()

    accepting =
      spawn_link(fn ->
        {:ok, tip} = :tube.accept()
        true = :tube.port_connect(tip, me)
        Process.unlink(tip)
        send(me, {:accepted, tip})
      end)

    {:ok, nock} = :tube.open(5, tid)
    assert_receive {:accepted, tip}, 5_000
    Process.unlink(accepting)
    {nock, tip}
  end

  @doc false
  def handle(pid) do
    [{:tube, id}] = for {:tube, _} = key <- Registry.keys(Tube.Registry, pid), do: key
    {:ok, record} = Tube.Connection.Registry.lookup(id)
    {:ok, %{tip: record.tube}}
  end

  @doc false
  def read(_tube, 0), do: []

  def read(tube, left) do
    receive do
      {^tube, {:data, <<n, _::binary>>}} -> [n | read(tube, left - 1)]
    after
      5_000 -> [:nothing]
    end
  end
end
