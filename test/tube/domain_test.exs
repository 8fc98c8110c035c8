defmodule Tube.DomainTest do
  # Not async: the environment of the whole VM also sets run directory and domid.
  use ExUnit.Case

  import Tube.Test.{Eventually, RunDir}

  alias Tube.Domain.Hub
  alias Tube.{Domain, Native, Xenstore}
  alias Tube.Domain.Settings

  setup :fresh_run_dir

  # Starts one more domain in this VM.
  defp domain(id \\ :one) do
    name = :"#{__MODULE__}.#{inspect(id)}"
    start_supervised!({Domain.Server, name: name}, id: id)
    name
  end

  defp attached(run_dir, id \\ :one, opts \\ []) do
    name = domain(id)
    {:ok, domain} = Domain.attach(name, [run_dir: run_dir] ++ opts)
    {name, domain}
  end

  defp info(name) do
    state = :sys.get_state(name)

    hub =
      case state do
        %{phase: :attached} -> :up
        %{phase: :idle} -> :unknown
        %{lost: true} -> :down
        _first_attempt -> :attaching
      end

    settings = state.wanted || %{domid: nil, run_dir: nil}
    Map.merge(%{hub: hub, error: state.error}, Map.take(settings, [:domid, :run_dir]))
  end

  defp put_env(variables) do
    for {name, value} <- variables do
      before = System.get_env(name)
      if value, do: System.put_env(name, value), else: System.delete_env(name)

      on_exit(fn -> if before, do: System.put_env(name, before), else: System.delete_env(name) end)
    end
  end

  describe "attaching" do
    test "happens on demand, and starts a hub", %{run_dir: run_dir} do
      put_env(%{"TUBE_RUN_DIR" => run_dir, "TUBE_DOMID" => nil})
      name = domain()

      assert %{hub: :unknown, domid: nil, run_dir: nil, error: nil} = info(name)

      assert hub_pids(run_dir) == []

      assert Domain.domid(name) == {:ok, 1}
      assert [_hub] = hub_pids(run_dir)
      assert %{hub: :up, domid: 1, run_dir: ^run_dir} = info(name)

      assert {:ok, %Domain{name: :local, domid: 1, run_dir: ^run_dir} = domain} =
               Domain.attach(name, [])

      assert Domain.store(name) == {:ok, domain.store}
      assert Xenstore.read(domain.store, "/local/domain/1/domid") == {:ok, "1"}
      # A relative path belongs to this domain.
      assert Xenstore.read(domain.store, "domid") == {:ok, "1"}
    end

    test "assigns the lowest free domid, or the requested one", %{run_dir: run_dir} do
      assert {_, %{domid: 1}} = attached(run_dir, :one)
      assert {_, %{domid: 3}} = attached(run_dir, :three, domid: 3)
      assert {_, %{domid: 2}} = attached(run_dir, :two)
      assert [_only_one_hub] = hub_pids(run_dir)
    end

    test "as an existing domain is refused until that one has left", %{
      run_dir: run_dir
    } do
      attached(run_dir, :first, domid: 5)
      second = domain(:second)
      assert {:error, {:domid_taken, text}} = Domain.attach(second, run_dir: run_dir, domid: 5)
      assert text =~ "5"
      assert %{hub: :unknown, error: {:domid_taken, ^text}} = info(second)

      :ok = stop_supervised!(:first)

      true!(fn ->
        match?({:ok, %{domid: 5}}, Domain.attach(second, run_dir: run_dir, domid: 5))
      end)

      assert info(second).error == nil
    end

    test "by many callers at once happens once", %{run_dir: run_dir} do
      name = domain()
      tasks = for _ <- 1..20, do: Task.async(fn -> Domain.attach(name, run_dir: run_dir) end)
      assert [{:ok, %{domid: 1}}] = tasks |> Task.await_many(20_000) |> Enum.uniq()
      assert [_hub] = hub_pids(run_dir)
    end

    test "as another domain than the current one is refused", %{run_dir: run_dir} do
      {name, domain} = attached(run_dir)
      assert Domain.attach(name, run_dir: run_dir, domid: 1) == {:ok, domain}
      assert {:error, {:einval, text}} = Domain.attach(name, domid: 2)
      assert text =~ "already domain 1 of #{run_dir}"
      assert {:error, {:einval, _}} = Domain.attach(name, run_dir: Path.join(run_dir, "other"))
    end

    test "never starts a hub where only one domain's directory is visible", %{run_dir: run_dir} do
      File.mkdir!(Path.join(run_dir, "dom5"))
      assert {:error, {:no_hub, text}} = Domain.attach(domain(), run_dir: run_dir)
      assert text =~ run_dir and text =~ "outside"
      assert hub_pids(run_dir) == []
      assert File.ls!(run_dir) == ["dom5"]
    end

    test "reports the error of a hub that cannot start", %{run_dir: run_dir} do
      File.mkdir!(Path.join(run_dir, "hub.lock"))
      assert {:error, {:no_hub, text}} = Domain.attach(domain(), run_dir: run_dir)
      assert text =~ "tube-hub" and text =~ "hub.lock" and text =~ "status 1"
    end

    test "to something other than a hub is refused", %{run_dir: run_dir} do
      File.write!(Path.join(run_dir, "hub.sock"), "")
      assert {:error, {:not_a_hub, text}} = Domain.attach(domain(), run_dir: run_dir)
      assert text =~ "hub.sock"
    end

    test "to a hanging hub ends in time, and does not block the process", %{
      run_dir: run_dir
    } do
      :ok = Hub.start(run_dir)
      [hub] = hub_pids(run_dir)
      on_exit(fn -> System.cmd("kill", ["-CONT", "#{hub}"]) end)
      {_, 0} = System.cmd("kill", ["-STOP", "#{hub}"])

      name = domain()
      task = Task.async(fn -> Domain.attach(name, run_dir: run_dir) end)
      true!(fn -> info(name).hub == :attaching end)
      assert {:error, {:etimedout, text}} = Task.await(task, 15_000)
      assert text =~ "did not answer in time"
    end

    test "leaves nothing behind after the process stops", %{run_dir: run_dir} do
      before = Native.live_counts()
      {_name, domain} = attached(run_dir)
      store = Process.monitor(domain.store)
      assert Native.live_counts().streams == before.streams + 2
      :ok = stop_supervised!(:one)
      assert_receive {:DOWN, ^store, _, _, _}, 5_000
      true!(fn -> Native.live_counts() == before end)

      # Other domains find it gone.
      {_, other} = attached(run_dir, :other, domid: 9)

      true!(fn ->
        Xenstore.read(other.store, "/local/domain/1/domid") in [
          {:error, :enoent},
          {:error, :eacces}
        ]
      end)
    end
  end

  describe "settings" do
    test "come from options, then the application, then the process", %{run_dir: run_dir} do
      other = create()
      on_exit(fn -> remove(other) end)
      put_env(%{"TUBE_RUN_DIR" => other, "TUBE_DOMID" => "7"})
      assert Settings.resolve([]) == {:ok, %Settings{run_dir: other, domid: 7}}

      Application.put_env(:tube, :run_dir, run_dir)
      Application.put_env(:tube, :domid, 8)

      on_exit(fn ->
        Application.delete_env(:tube, :run_dir)
        Application.delete_env(:tube, :domid)
      end)

      assert Settings.resolve([]) == {:ok, %Settings{run_dir: run_dir, domid: 8}}

      assert Settings.resolve(run_dir: other, domid: 0) ==
               {:ok, %Settings{run_dir: other, domid: 0}}
    end

    test "have defaults", %{run_dir: run_dir} do
      put_env(%{"TUBE_RUN_DIR" => "", "TUBE_DOMID" => "", "XDG_RUNTIME_DIR" => run_dir})
      assert Settings.resolve([]) == {:ok, %Settings{run_dir: run_dir <> "/tube", domid: nil}}

      put_env(%{"XDG_RUNTIME_DIR" => nil})

      case Settings.resolve([]) do
        {:ok, settings} -> assert settings.run_dir == "/run/tube"
        {:error, {:bad_run_dir, text}} -> assert text =~ "/run/tube" and text =~ "TUBE_RUN_DIR"
      end
    end

    test "with an invalid domid are refused with their place and the allowed range", %{
      run_dir: run_dir
    } do
      for domid <- [-1, 0x7FF0, 1.0, :one, "five", "5x", ""] do
        assert {:error, {:einval, text}} = Settings.resolve(run_dir: run_dir, domid: domid)
        assert text =~ ":domid" and text =~ inspect(domid) and text =~ "0 to 32751"
      end

      put_env(%{"TUBE_DOMID" => "32752"})
      assert {:error, {:einval, text}} = Domain.attach(domain(), run_dir: run_dir)
      assert text =~ ~s(TUBE_DOMID is "32752")
    end

    test "with unknown names raise", %{run_dir: run_dir} do
      assert_raise ArgumentError, ~r/:dir/, fn -> Domain.attach(domain(), dir: run_dir) end
    end

    test "with an unsuitable run directory are refused with the reason", %{run_dir: run_dir} do
      below = &Path.join(run_dir, &1)
      File.write!(below.("file"), "")
      for {name, mode} <- [group: 0o770, world: 0o707], do: make(below.("#{name}"), mode)

      for {bad, why} <- [
            {below.("file"), "not a directory"},
            {below.("file/run"), "not a directory"},
            {below.("none/run"), "cannot be created"},
            {below.("group"), "mode 770"},
            {below.("world"), "mode 707"},
            {"relative/run", "absolute"},
            {"/with\0nul", "absolute"},
            {"/" <> String.duplicate("x", 90), "82 bytes"},
            {:atom, "string"}
          ] do
        assert {:error, {:bad_run_dir, text}} =
                 Domain.attach(domain({:bad, why, bad}), run_dir: bad)

        assert text =~ why and text =~ inspect(bad), text
      end
    end

    test "with another user's run directory are refused", %{run_dir: run_dir} do
      theirs = make(Path.join(run_dir, "theirs"), 0o700)

      # Only root can create one; others use root's own, which is allowed.
      case File.chown(theirs, 4242) do
        :ok ->
          assert {:error, {:bad_run_dir, text}} = Domain.attach(domain(), run_dir: theirs)
          assert text =~ "belongs to user 4242"

        {:error, :eperm} ->
          assert {:ok, %{run_dir: "/usr"}} = Settings.resolve(run_dir: "/usr")
      end
    end

    defp make(path, mode) do
      File.mkdir!(path)
      File.chmod!(path, mode)
      path
    end
  end

  describe "losing the hub" do
    test "is survived as the same domain, and reported", %{run_dir: run_dir} do
      {one, first} = attached(run_dir, :one)
      {seven, _} = attached(run_dir, :seven, domid: 7)
      for name <- [one, seven], do: :ok = Domain.subscribe(name)
      :ok = Xenstore.write(first.store, "/local/domain/1/data/mine", "published")
      [old] = hub_pids(run_dir)

      end_hub(run_dir, "KILL")
      assert_receive {:tube_domain, :lost}, 5_000
      assert_receive {:tube_domain, :lost}, 5_000

      assert_receive {:tube_domain, :attached, %{domid: 1} = again}, 10_000
      assert_receive {:tube_domain, :attached, %{domid: 7}}, 10_000
      # Both start a hub; the second one exits.
      true!(fn -> match?([new] when new != old, hub_pids(run_dir)) end)

      # The new store has none of the published nodes.
      assert Xenstore.read(again.store, "/local/domain/1/data/mine") == {:error, :enoent}
      assert Xenstore.read(first.store, "/local/domain/1/data/mine") == {:error, :store_lost}
      assert Domain.attach(one, []) == {:ok, again}
    end

    test "makes calls fail at once while it lasts", %{run_dir: run_dir} do
      {name, _} = attached(run_dir)
      :ok = Domain.subscribe(name)
      # No hub would serve such a directory.
      File.chmod!(run_dir, 0o770)
      end_hub(run_dir, "KILL")
      assert_receive {:tube_domain, :lost}, 5_000

      true!(fn -> match?(%{hub: :down, error: {:bad_run_dir, _}}, info(name)) end)
      assert %{domid: 1, run_dir: ^run_dir} = info(name)
      assert {:error, {:bad_run_dir, text}} = Domain.store(name)
      assert text =~ run_dir

      # It comes back as soon as it can.
      File.chmod!(run_dir, 0o700)
      assert_receive {:tube_domain, :attached, %{domid: 1}}, 15_000
    end

    test "has no effect without subscribers until the next call", %{run_dir: run_dir} do
      {name, domain} = attached(run_dir)
      store = Process.monitor(domain.store)
      end_hub(run_dir, "KILL")
      assert_receive {:DOWN, ^store, _, _, _}, 5_000
      true!(fn -> info(name).hub == :unknown end)
      assert hub_pids(run_dir) == []
      assert {:ok, %{domid: 1}} = Domain.attach(name, run_dir: run_dir)
    end

    test "is given up when the last subscriber ends", %{run_dir: run_dir} do
      {name, _} = attached(run_dir)
      test = self()

      subscriber =
        spawn(fn ->
          :ok = Domain.subscribe(name)
          send(test, :subscribed)
          receive do: ({:tube_domain, :lost} -> send(test, :lost))
          Process.sleep(:infinity)
        end)

      assert_receive :subscribed, 5_000
      File.chmod!(run_dir, 0o770)
      end_hub(run_dir, "KILL")
      assert_receive :lost, 5_000
      assert info(name).hub == :down
      Process.exit(subscriber, :kill)
      true!(fn -> info(name).hub == :unknown end)
    end

    test "is not reported after unsubscribing", %{run_dir: run_dir} do
      {name, domain} = attached(run_dir)
      :ok = Domain.subscribe(name)
      :ok = Domain.unsubscribe(name)
      store = Process.monitor(domain.store)
      end_hub(run_dir, "KILL")
      assert_receive {:DOWN, ^store, _, _, _}, 5_000
      true!(fn -> info(name).hub == :unknown end)
      # A :released event may have come in between: a watch begins with an event.
      refute_received {:tube_domain, :lost}
    end
  end

  test "a lost store gets a new connection; the domain lives on", %{run_dir: run_dir} do
    {name, domain} = attached(run_dir)
    :ok = Domain.subscribe(name)
    :ok = Xenstore.write(domain.store, "/local/domain/1/data/mine", "published")
    [hub] = hub_pids(run_dir)

    Process.exit(domain.store, :kill)
    assert_receive {:tube_domain, :lost}, 5_000
    assert_receive {:tube_domain, :attached, again}, 5_000
    assert again.platform == domain.platform
    assert again.store != domain.store
    assert hub_pids(run_dir) == [hub]
    assert Xenstore.read(again.store, "/local/domain/1/data/mine") == {:ok, "published"}
  end

  test "a held domain leaves once, and its subscribers learn it", %{run_dir: run_dir} do
    {name, _} = attached(run_dir)
    :ok = Domain.subscribe(name)
    assert Domain.hold(name) == :ok
    assert Domain.leave(name) == :ok
    assert_receive {:tube_domain, :lost}, 5_000
    assert Domain.leave(name) == :ok
    # A watch's first event, `:released`, may have come before.
    refute_received {:tube_domain, :lost}
  end
end
