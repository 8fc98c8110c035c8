Code.require_file("native/compile.exs", __DIR__)

defmodule Tube.MixProject do
  use Mix.Project

  @version "0.1.0"

  def project do
    [
      app: :tube,
      version: @version,
      elixir: "~> 1.14",
      description: "The link that Erlang VMs on one machine should always have had.",
      package: [licenses: ["Apache-2.0"]],
      elixirc_paths: elixirc_paths(Mix.env()),
      compilers: [:tube_native | Mix.compilers()],
      start_permanent: Mix.env() == :prod,
      # None, so that the project builds without hex.pm.
      deps: []
    ]
  end

  def application do
    [mod: {Tube.Application, []}, extra_applications: [:crypto, :logger]]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]
end
