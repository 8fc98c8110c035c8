# Publish and subscribe over tubes. A subscriber opens the service "news" and sends a topic. It then
# receives all texts published there, except while it reads too slowly: publishers do not wait.
#
#     mix run examples/pub_sub.exs

defmodule News do
  use Tube.Handler

  def child_spec(_), do: Registry.child_spec(keys: :duplicate, name: __MODULE__)

  # Publishing only sends messages to the connections, so a slow one does not delay it.
  def publish(topic, text) do
    Registry.dispatch(__MODULE__, topic, fn subscribers ->
      for {pid, _} <- subscribers, do: send(pid, {:publish, topic, text})
    end)
  end

  # All data from a subscriber is a topic. The reply confirms the subscription.
  @impl true
  def handle_data(topic, tube, state) do
    {:ok, _} = Registry.register(__MODULE__, topic, nil)
    continue(Tube.send(tube, "subscribed to " <> topic), state)
  end

  @impl true
  def handle_info({:publish, topic, text}, tube, state) do
    case Tube.send(tube, [topic, ": ", text], nosuspend: true) do
      {:error, :busy} -> {:continue, state}
      other -> continue(other, state)
    end
  end

  defp continue(:ok, state), do: {:continue, state}
  defp continue({:error, reason}, state), do: {:error, reason, state}
end

{:ok, _supervisor} =
  Supervisor.start_link([News, {Tube.Handler.Supervisor, handler: News, service: "news"}],
    strategy: :one_for_one
  )

{:ok, domid} = Tube.domid()

subscribe = fn name, topics ->
  {:ok, tube} = Tube.open(domid, service: "news", active: false)

  for topic <- topics do
    :ok = Tube.send(tube, topic)
    {:ok, "subscribed to " <> ^topic} = Tube.recv(tube, 5_000)
  end

  {name, tube}
end

subscribers = [subscribe.("Ann", ["weather"]), subscribe.("Ben", ["weather", "sport"])]

News.publish("weather", "rain")
News.publish("sport", "a draw")

for {{name, tube}, count} <- Enum.zip(subscribers, [1, 2]) do
  for _ <- 1..count do
    {:ok, text} = Tube.recv(tube, 5_000)
    IO.puts("#{name} hears #{text}")
  end

  :ok = Tube.close(tube)
end
