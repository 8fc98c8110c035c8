defmodule Tube.Dist.GuideTest do
  # The command lines of guides/distribution.md in a new project.
  use ExUnit.Case, async: false

  import Tube.Test.RunDir
  alias Tube.Test.Eventually

  @root Path.expand("../..", __DIR__)
  @guide File.read!(Path.join(@root, "guides/distribution.md"))
  @moduletag timeout: 300_000
  # Compiles a project, which a guest of the lab cannot.
  @moduletag :hub

  setup :fresh_run_dir

  setup %{run_dir: run_dir} do
    project = run_dir <> "-project"
    File.mkdir_p!(Path.join(project, "rel"))
    on_exit(fn -> File.rm_rf!(project) end)

    File.write!(Path.join(project, "mix.exs"), """
    defmodule MyApp.MixProject do
      use Mix.Project

      def project do
        [app: :my_app, version: "0.1.0", deps: [{:tube, path: #{inspect(@root)}}]]
      end
    end
    """)

    [args] = Regex.run(~r/^-proto_dist tube\n-start_epmd false\n/m, @guide)
    File.write!(Path.join(project, "rel/vm.args.eex"), args)
    %{project: project}
  end

  # Each line starts node a, which b connects to and then stops.
  test "iex, mix run, erl, a release, and a node without a name", c do
    assert {_, 0} = sh(c, "mix compile")
    assert {_, 0} = sh(c, "MIX_ENV=prod mix release --quiet")
    elixir_libs = :elixir |> :code.lib_dir() |> Path.dirname()

    for line <- [
          ~s(ERL_LIBS=_build/dev/lib iex --erl "-proto_dist tube -start_epmd false" --sname a@dom5 --cookie secret -S mix),
          ~s(ERL_LIBS=_build/dev/lib elixir --erl "-proto_dist tube -start_epmd false" --sname a@dom5 --cookie secret -S mix run --no-halt),
          ~s(ERL_LIBS=_build/dev/lib:/usr/lib/elixir/lib erl -proto_dist tube -start_epmd false -sname a@dom5 -setcookie secret),
          ~s(RELEASE_DISTRIBUTION=sname RELEASE_NODE=a@dom5 bin/my_app start)
        ] do
      assert @guide =~ line
      line = String.replace(line, "/usr/lib/elixir/lib", elixir_libs)
      node = start(c, line)
      assert reached?(c)
      assert remote(c) =~ "a@dom5"
      stop(c, node)
    end
  end

  defp remote(c) do
    line =
      ~S(ERL_LIBS=_build/dev/lib elixir --erl "-proto_dist tube -start_epmd false" --sname undefined --cookie secret ) <>
        ~S"-e ':net_kernel.connect_node(:a@dom5); IO.puts(:erpc.call(:a@dom5, :erlang, :node, []))'"

    assert @guide =~ line
    {output, 0} = sh(c, line)
    output
  end

  defp sh(c, line, input \\ "") do
    File.write!(Path.join(c.project, "input"), input)

    System.cmd("sh", ["-c", line <> " < input"],
      cd: c.project,
      stderr_to_stdout: true,
      env: env(c)
    )
  end

  # Its standard input stays open, so the node runs until it is stopped.
  defp start(c, "RELEASE" <> _ = line) do
    line = String.replace(line, "bin/my_app", "_build/prod/rel/my_app/bin/my_app")
    open(c, "RELEASE_COOKIE=secret " <> line)
  end

  defp start(c, line), do: open(c, line)

  defp open(c, line) do
    env =
      for {name, value} <- env(c), do: {to_charlist(name), (value && to_charlist(value)) || false}

    Port.open({:spawn_executable, "/bin/sh"}, [
      :binary,
      :stderr_to_stdout,
      cd: c.project,
      env: env,
      args: ["-c", line]
    ])
  end

  # Retries until the node is up.
  defp reached?(c) do
    line =
      ~s(ERL_LIBS=_build/dev/lib elixir --erl "-proto_dist tube -start_epmd false" --sname b@dom7 --cookie secret ) <>
        ~s(-e 'IO.puts\("got:" <> inspect\(Node.connect\(:"a@dom5"\)\)\)')

    Eventually.true!(fn -> sh(c, line) |> elem(0) =~ "got:true" end, 60_000) == :ok
  end

  defp stop(c, node) do
    line =
      ~s(ERL_LIBS=_build/dev/lib elixir --erl "-proto_dist tube -start_epmd false" --sname b@dom7 --cookie secret ) <>
        ~s(-e ':rpc.call\(:"a@dom5", :init, :stop, []\)')

    sh(c, line)
    # Its domain ends with it.
    Eventually.true!(fn -> not File.exists?(Path.join(c.run_dir, "dom5")) end, 20_000)
    if Port.info(node), do: Port.close(node)
  end

  defp env(c) do
    [
      {"MIX_BUILD_PATH", nil},
      {"MIX_TARGET", nil},
      {"MIX_ENV", "dev"},
      # This test run has already built priv/native.
      {"TUBE_NATIVE_BUILD", "0"},
      {"TUBE_RUN_DIR", c.run_dir},
      {"TUBE_DOMID", nil}
    ]
  end
end
