Code.require_file("../handshake/store.ex", __DIR__)

defmodule Tube.Xenstore.BatchTest do
  use ExUnit.Case, async: true

  alias Tube.Handshake.{Nock, TestStore, Tip}
  alias Tube.Xenstore.Batch

  @me 7
  @root "/local/domain/7/data"

  # One request after another, as the steps are defined.
  defp plainly(requests, call) do
    requests
    |> Enum.reduce_while([], fn request, results ->
      case step(request, call) do
        {:abort, reason} -> {:halt, {:error, reason}}
        result -> {:cont, [result | results]}
      end
    end)
    |> case do
      {:error, _reason} = error -> error
      results -> {:ok, Enum.reverse(results)}
    end
  end

  defp step({:guard, path, values}, call) do
    value = with({:ok, value} <- call.({:read, path}), do: value)
    value = if value in [{:error, :enoent}, {:error, :eacces}], do: nil, else: value
    if value in values, do: :ok, else: {:abort, :guard}
  end

  defp step({:ensure, path, perms}, call) do
    set = fn -> with {:error, :eperm} <- call.({:set_perms, path, perms}), do: :ok end

    case call.({:get_perms, path}) do
      {:ok, ^perms} -> :ok
      {:ok, _other} -> set.()
      {:error, :enoent} -> with :ok <- step({:mkdir, path}, call), do: set.()
      {:error, reason} -> {:abort, reason}
    end
  end

  defp step({:try, request}, call), do: call.(request)

  defp step({:prune, path, but}, call) do
    with {:ok, names} <- call.({:directory, path}), [] <- names -- but, do: call.({:rm, path})
    :ok
  end

  defp step({:prune, path}, call), do: step({:prune, path, []}, call)

  defp step(request, call),
    do: with({:error, reason} <- call.(request), do: {:abort, reason})

  # Returns the result, the store after it, and the number of lists sent.
  defp on(store, run) do
    Process.put(:store, {store, 0})

    call = fn request ->
      {store, lists} = Process.get(:store)
      {result, store, _fired} = TestStore.request(store, :c, @me, request)
      Process.put(:store, {store, lists})
      result
    end

    result = run.(call)
    {after_it, lists} = Process.get(:store)
    {result, after_it, lists}
  end

  defp at_once(store, requests) do
    on(store, fn call ->
      Batch.run(requests, fn list ->
        {store, lists} = Process.get(:store)
        Process.put(:store, {store, lists + 1})
        Enum.map(list, call)
      end)
    end)
  end

  defp path(depth),
    do: Enum.join([@root | for(_ <- 1..depth, do: Enum.random(~w(a b c)))], "/")

  defp random_request do
    path = path(Enum.random(1..3))

    Enum.random([
      {:guard, path, [nil, "1"]},
      {:ensure, path, [n: @me]},
      {:ensure, path, [n: @me, r: 5]},
      {:prune, path},
      {:prune, path, ["a"]},
      {:try, {:rm, path}},
      {:try, {:read, path}},
      {:rm, path},
      {:read, path},
      {:mkdir, path},
      {:write, path, Enum.random(~w(1 2))}
    ])
  end

  test "gives the same as its requests one after another, on any store" do
    :rand.seed(:exsss, {1, 2, 3})

    for _ <- 1..3_000 do
      store = TestStore.new([5, 7])
      ground = for _ <- 1..Enum.random(1..8), do: {:try, {:write, path(Enum.random(1..3)), "1"}}
      {_results, store, _lists} = at_once(store, ground)
      requests = for _ <- 1..Enum.random(1..6), do: random_request()

      {expected, expected_store, _none} = on(store, &plainly(requests, &1))
      {result, result_store, _lists} = at_once(store, requests)

      assert {requests, result} == {requests, expected}
      # The store undoes an aborted transaction.
      if match?({:ok, _}, result),
        do: assert({requests, result_store} == {requests, expected_store})
    end
  end

  test "the handshake's transactions take few lists" do
    params = %{me: 7, peer: 5, tid: 0, nonce: "0123456789abcdef", service: "s"}
    {nock, _ops} = Nock.new(params)
    {tip, _ops} = Tip.new(%{params | me: 5, peer: 7})
    store = TestStore.new([5, 7])

    for {limit, {:transaction, requests}} <- [
          {2, Nock.publish(%{nock | own_state: 2})},
          {3, Nock.remove(nock)},
          {3, Tip.remove(tip)}
        ] do
      {{:ok, _results}, _store, lists} = at_once(store, requests)
      assert lists <= limit
    end
  end
end
