defmodule Tube.FreshProjectTest do
  @moduledoc false
  # The first steps of a user: a new Mix project that depends on tube, and two VMs of it that talk.
  # Everything runs with `mix`, as operating system processes, independent of this VM.
  use ExUnit.Case, async: true

  @root Path.expand("..", __DIR__)
  # Includes a first build of the native part, which takes minutes on a slow machine.
  @build_limit 300_000
  @moduletag timeout: 2 * @build_limit

  import Tube.Test.RunDir
  setup :fresh_run_dir

  setup %{run_dir: run_dir} do
    project = run_dir <> "-project"
    File.mkdir_p!(Path.join(project, "lib"))
    on_exit(fn -> File.rm_rf!(project) end)

    File.write!(Path.join(project, "mix.exs"), """
    defmodule Fresh.MixProject do
      use Mix.Project

      def project do
        [app: :fresh, version: "0.1.0", elixir: "~> 1.14", deps: [{:tube, path: #{inspect(@root)}}]]
      end

      def application, do: [extra_applications: [:logger]]
    end
    """)

    File.write!(Path.join(project, "lib/fresh.ex"), """
    defmodule Fresh do
      def tip do
        {:ok, listener} = Tube.listen(service: "fresh", active: false)
        {:ok, tube} = Tube.accept(listener, 30_000)
        {:ok, message} = Tube.recv(tube, 30_000)
        :ok = Tube.send(tube, String.upcase(message))
        {:error, :closed} = Tube.recv(tube, 30_000)
        IO.puts("tip: done")
      end

      def nock do
        {:ok, tube} = Tube.open(5, service: "fresh", active: false, timeout: 30_000)
        :ok = Tube.send(tube, "hello")
        {:ok, reply} = Tube.recv(tube, 30_000)
        :ok = Tube.close(tube)
        IO.puts("nock: " <> reply)
      end
    end
    """)

    %{project: project}
  end

  test "a project that depends on tube by path compiles, and two VMs of it talk", context do
    assert {output, 0} = mix(context, ~w(compile --warnings-as-errors))
    assert output =~ "Generated fresh app"

    tip = Task.async(fn -> mix(context, ["run", "-e", "Fresh.tip()"], domid: "5") end)
    nock = Task.async(fn -> mix(context, ["run", "-e", "Fresh.nock()"], domid: "7") end)

    assert [{tip_output, 0}, {nock_output, 0}] = Task.await_many([tip, nock], @build_limit)
    assert tip_output =~ "tip: done"
    assert nock_output =~ "nock: HELLO"
  end

  defp mix(%{project: project, run_dir: run_dir}, args, opts \\ []) do
    System.cmd("mix", args,
      cd: project,
      stderr_to_stdout: true,
      env: [
        {"MIX_ENV", "dev"},
        # The project has its own build directory; the native one is shared and already built.
        {"MIX_BUILD_PATH", nil},
        {"MIX_TARGET", nil},
        {"TUBE_RUN_DIR", run_dir},
        {"TUBE_DOMID", opts[:domid]}
      ]
    )
  end
end
