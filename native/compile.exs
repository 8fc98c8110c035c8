defmodule Mix.Tasks.Compile.TubeNative do
  @moduledoc false
  # Builds the cargo workspace in native/ and copies its products to priv/native: tube.so (NIF and
  # driver in one library) and tube-hub. mix.exs loads this file, because a project cannot compile
  # its own compilers.
  #
  # TUBE_NATIVE_BUILD=0 leaves priv/native unchanged, for packagers who fill it themselves.

  use Mix.Task.Compiler

  @manifest Path.join(__DIR__, "Cargo.toml")
  @priv Path.expand("../priv/native", __DIR__)
  @built [{"libtube.so", "tube.so"}, {"tube-hub", "tube-hub"}]

  @impl true
  def run(_argv) do
    if System.get_env("TUBE_NATIVE_BUILD") == "0", do: {:noop, []}, else: build()
  end

  @impl true
  def clean, do: File.rm_rf!(@priv)

  defp build do
    case System.find_executable("cargo") do
      nil ->
        failed("cargo was not found: tube needs Rust 1.91 or newer (https://rustup.rs)")

      cargo ->
        args =
          ~w(build --release --locked --quiet --manifest-path #{@manifest} -p tube -p tube-hub)

        case System.cmd(cargo, args, stderr_to_stdout: true) do
          {_out, 0} -> install()
          {out, _status} -> failed(out)
        end
    end
  end

  defp install do
    File.mkdir_p!(@priv)
    target = System.get_env("CARGO_TARGET_DIR") || Path.join(__DIR__, "target")

    changed =
      for {from, to} <- @built,
          put(Path.join([target, "release", from]), Path.join(@priv, to)),
          do: to

    # Mix links priv/ into _build only if it exists, so this comes after the copies.
    Mix.Project.build_structure()
    {if(changed == [], do: :noop, else: :ok), []}
  end

  # Never overwrite a library that a running VM may have mapped: write another file and rename it.
  defp put(from, to) do
    if same?(from, to) do
      false
    else
      temporary = "#{to}.#{System.pid()}.new"
      File.cp!(from, temporary)
      File.rename!(temporary, to)
      true
    end
  end

  defp same?(a, b), do: File.exists?(b) and File.read!(a) == File.read!(b)

  defp failed(message) do
    Mix.shell().error(message)

    diagnostic = %Mix.Task.Compiler.Diagnostic{
      compiler_name: "tube_native",
      file: @manifest,
      message: message,
      position: 0,
      severity: :error
    }

    {:error, [diagnostic]}
  end
end
