defmodule Tube.PlatformTest do
  # Which platform a VM chooses, and its errors where that one is missing. Not async: the
  # environment is that of the whole VM.
  use ExUnit.Case

  import Tube.Test.RunDir

  alias Tube.Domain
  alias Tube.Domain.{ExclusiveClaim, Settings}

  @xenbus File.exists?("/dev/xen/xenbus")

  defp put_env(name, value) do
    before = System.get_env(name)
    if value, do: System.put_env(name, value), else: System.delete_env(name)

    on_exit(fn -> if before, do: System.put_env(name, before), else: System.delete_env(name) end)
  end

  setup do
    put_env("TUBE_PLATFORM", nil)
    put_env("TUBE_RUN_DIR", nil)
    put_env("XDG_RUNTIME_DIR", System.tmp_dir!())
  end

  describe "the platform" do
    test "is Xen on Xen by default" do
      platform = if @xenbus, do: :xen, else: :local
      assert {:ok, %{platform: ^platform}} = Settings.resolve([])
    end

    test "is the local one with a run directory" do
      %{run_dir: run_dir} = fresh_run_dir()
      assert {:ok, %{platform: :local}} = Settings.resolve(run_dir: run_dir)
      put_env("TUBE_RUN_DIR", run_dir)
      assert {:ok, %{platform: :local, run_dir: ^run_dir}} = Settings.resolve([])
    end

    test "is set by option, configuration or environment, in this order" do
      put_env("TUBE_PLATFORM", "xen")
      # Xen has no run directory, so the setting is ignored.
      put_env("TUBE_RUN_DIR", "not/absolute")
      assert {:ok, %{platform: :xen, run_dir: nil}} = Settings.resolve([])

      put_env("TUBE_RUN_DIR", nil)
      Application.put_env(:tube, :platform, :local)
      on_exit(fn -> Application.delete_env(:tube, :platform) end)
      assert {:ok, %{platform: :local}} = Settings.resolve([])
      assert {:ok, %{platform: :xen}} = Settings.resolve(platform: :xen)
    end

    test "is one of two, and an error names its place" do
      put_env("TUBE_PLATFORM", "kvm")
      assert {:error, {:einval, text}} = Settings.resolve([])
      assert text =~ "TUBE_PLATFORM" and text =~ "kvm" and text =~ "local or xen"
    end
  end

  describe "available?" do
    test "the local platform, if its hub was built" do
      assert Tube.available?(:local) == true
      put_env("TUBE_RUN_DIR", "not/absolute")
      assert {false, [bad_run_dir: text]} = Tube.available?(:local)
      assert text =~ "TUBE_RUN_DIR"
    end

    test "Xen, or everything that it lacks and how to fix it" do
      for {device, word} <- [
            {"/dev/xen/xenbus", :no_xenbus},
            {"/dev/xen/gntalloc", :no_gntalloc},
            {"/dev/xen/gntdev", :no_gntdev},
            {"/dev/xen/evtchn", :no_evtchn}
          ],
          not File.exists?(device) do
        assert {false, lacks} = Tube.available?(:xen)
        assert lacks[word] =~ device
        assert word == :no_xenbus or lacks[word] =~ "modprobe"
      end
    end

    test "nothing else" do
      assert_raise ArgumentError, ~r/:kvm is not a platform/, fn -> Tube.available?(:kvm) end
    end
  end

  test "one process claims a Xen domain, which is free again when that process ends" do
    test = self()

    holder =
      spawn_link(fn ->
        send(test, ExclusiveClaim.take())
        receive do: (:end -> :ok)
      end)

    assert_receive {:ok, claim}
    assert {:error, {:domid_taken, _text}} = ExclusiveClaim.take()
    monitor = Port.monitor(claim)
    send(holder, :end)
    assert_receive {:DOWN, ^monitor, :port, ^claim, _reason}
    assert {:ok, _claim} = ExclusiveClaim.take()
  end

  test "requiring Xen without it reports everything that is missing" do
    with {false, [{word, _} | _] = lacks} <- Tube.available?(:xen) do
      domain = start_supervised!({Domain.Server, name: :"#{__MODULE__}.domain"})
      assert {:error, {^word, text}} = Domain.attach(domain, platform: :xen)
      for {_word, lack} <- lacks, do: assert(text =~ lack)
    end
  end
end
