defmodule Tube.Handshake.Broken do
  @moduledoc false
  # Machines with one fault each, which the explorer must find. Each is the real machine with some
  # of its events or operations altered.

  defmacro __using__(real) do
    quote do
      @moduledoc false
      @real unquote(real)
      def new(params), do: alter(@real.new(params))
      def handle(m, event), do: alter(@real.handle(m, event(m, event)))
      defdelegate peer_node(m), to: @real
      defp alter({m, ops}), do: {m, Enum.flat_map(ops, &op/1)}
    end
  end
end

defmodule Tube.Handshake.Broken.NoLimit do
  use Tube.Handshake.Broken, Tube.Handshake.Nock

  defp event(_m, event), do: event
  defp op({:timer, :limit, _ms}), do: []
  defp op(op), do: [op]
end

defmodule Tube.Handshake.Broken.NoDrainLimit do
  use Tube.Handshake.Broken, Tube.Handshake.Tip

  defp event(_m, event), do: event
  defp op({:timer, :drain, _ms}), do: []
  defp op(op), do: [op]
end

# Takes any nonce, and any existing node at the tip, for its own.
defmodule Tube.Handshake.Broken.Trusting do
  use Tube.Handshake.Broken, Tube.Handshake.Nock

  defp event(m, {:store, {:peer, 1} = ref, {:ok, _nonce}}), do: {:store, ref, {:ok, m.nonce}}
  defp event(_m, event), do: event

  defp op({:store, {:request, _} = ref, {:transaction, list}}),
    do: [
      {:store, ref,
       {:transaction, Enum.reject(list, &match?({:try, {:rm, "/local/domain/5/" <> _}}, &1))}}
    ]

  defp op(op), do: [op]
end

# Writes and removes without checking whose attempt it is.
defmodule Tube.Handshake.Broken.Unguarded do
  use Tube.Handshake.Broken, Tube.Handshake.Tip

  defp event(_m, event), do: event

  defp op({:store, ref, {:transaction, list}}),
    do: [{:store, ref, {:transaction, Enum.reject(list, &match?({:guard, _, _}, &1))}}]

  defp op(op), do: [op]
end

defmodule Tube.Handshake.Broken.Hoarder do
  use Tube.Handshake.Broken, Tube.Handshake.Nock

  defp event(_m, event), do: event
  defp op(:free), do: []
  defp op(op), do: [op]
end

defmodule Tube.Handshake.Broken.Untidy do
  use Tube.Handshake.Broken, Tube.Handshake.Tip

  defp event(_m, event), do: event

  defp op({:store, {:clean, _} = ref, {:transaction, list}}),
    do: [{:store, ref, {:transaction, Enum.reject(list, &match?({:try, {:rm, _}}, &1))}}]

  defp op(op), do: [op]
end

# The founding document's universal access.
defmodule Tube.Handshake.Broken.Generous do
  use Tube.Handshake.Broken, Tube.Handshake.Tip

  defp event(_m, event), do: event

  defp op({:store, ref, {:transaction, list}}),
    do: [{:store, ref, {:transaction, Enum.map(list, &open/1)}}]

  defp op(op), do: [op]
  defp open({:ensure, path, [{:n, me}, {:b, me} | _]}), do: {:ensure, path, b: me}
  defp open(request), do: request
end
