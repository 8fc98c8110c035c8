defmodule Tube.ExamplesTest do
  # Runs each example with the command in its first lines, as an operating system process.
  use ExUnit.Case, async: true

  import Tube.Test.RunDir
  setup :fresh_run_dir

  @root Path.expand("..", __DIR__)

  test "echo", context do
    assert {output, 0} = run(context, "echo.exs")

    assert output =~
             ~r/asked "hello", heard "hello" through #Tube<1:0 -> 1 "echo" connected 64KiB>/

    assert output =~ "echo: domain 1 is connected"
  end

  test "pub_sub", context do
    assert {output, 0} = run(context, "pub_sub.exs")
    lines = for "" <> line <- String.split(output, "\n"), line =~ " hears ", do: line

    assert lines == [
             "Ann hears weather: rain",
             "Ben hears weather: rain",
             "Ben hears sport: a draw"
           ]
  end

  # This test run has already compiled the project.
  defp run(%{run_dir: run_dir}, example) do
    System.cmd("mix", ["run", "--no-compile", "examples/" <> example],
      cd: @root,
      stderr_to_stdout: true,
      env: [{"TUBE_RUN_DIR", run_dir}, {"TUBE_DOMID", nil}]
    )
  end
end
