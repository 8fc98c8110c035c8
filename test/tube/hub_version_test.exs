defmodule Tube.HubVersionTest do
  # A hub of another version than the library's: a clear error, and the hub is left alone.
  use ExUnit.Case, async: true
  use Tube.Test.VM

  import Tube.Test.RunDir

  alias Tube.Test.FakeHub

  setup :fresh_run_dir

  for {reply, words} <- [
        {{:welcome, 2}, "the hub speaks version 2, we speak 1"},
        {{:refuse, 2}, "this hub speaks version 2, the domain 1"}
      ] do
    test "one that replies #{inspect(reply)}", %{run_dir: run_dir} do
      FakeHub.start!(run_dir, unquote(reply))
      vm = VM.start!(run_dir: run_dir, domid: 1)

      VM.run(vm, fn ->
        assert {:error, {:hub_version, text}} = Tube.domid()
        assert text =~ unquote(words)
        assert Tube.Error.message({:hub_version, text}) == text
        assert Tube.listen() == {:error, {:hub_version, text}}
        assert Tube.open(2) == {:error, {:hub_version, text}}
      end)

      # It was not mistaken for a dead one and replaced.
      assert hub_pids(run_dir) == []
    end
  end
end
