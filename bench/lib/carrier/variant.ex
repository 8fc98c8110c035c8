defmodule Tube.Bench.Carrier.Variant do
  @moduledoc false
  # A carrier that overrides some functions of another: `use Carrier.Variant, Other`.

  defmacro __using__(other) do
    quote bind_quoted: [other: other] do
      @behaviour Tube.Bench.Carrier

      for {name, arity} <- Tube.Bench.Carrier.behaviour_info(:callbacks) do
        arguments = Macro.generate_arguments(arity, __MODULE__)
        @impl true
        defdelegate unquote(name)(unquote_splicing(arguments)), to: other
      end

      defoverridable Tube.Bench.Carrier
    end
  end
end
