defmodule Mix.Tasks.Tube.Ping do
  @shortdoc "Opens a tube to a domain and measures the time"

  @moduledoc """
  Opens a tube to a service of a domain, closes it, and prints how long each took.

      mix tube.ping DOMID [--service NAME] [--count N] [--echo]

  This VM becomes a domain of its own. `--echo` sends a message of 64 bytes and expects the same
  message back, as from the service in examples/echo.exs. Fails if it cannot open a tube.
  """
  use Mix.Task

  @options [service: :string, count: :integer, echo: :boolean]
  @message :binary.copy("tubes...", 8)

  @impl true
  def run(args) do
    {options, rest} = Mix.Tube.parse!(args, @options)

    peer =
      case rest do
        [text] -> Mix.Tube.number!(text, "domain")
        _none_or_more -> Mix.raise("mix tube.ping DOMID [--service NAME] [--count N] [--echo]")
      end

    Mix.Tube.start()
    open = [active: false] ++ Keyword.take(options, [:service])
    for n <- 1..max(options[:count] || 3, 1), do: once(n, peer, open, options[:echo])
    :ok
  end

  defp once(n, peer, open, echo?) do
    {opened, tube} = timed(fn -> Tube.open(peer, open) end, "open")
    {:ok, info} = Tube.info(tube)
    echo = if echo?, do: ", echo #{Mix.Tube.time(echo(tube))}", else: ""
    {closed, _} = timed(fn -> Tube.close(tube) end, "close")

    Mix.shell().info(
      "#{n}: domain #{peer}, tube #{info.tid}, service #{Mix.Tube.service(info.service)}: " <>
        "open #{Mix.Tube.time(opened)}#{echo}, close #{Mix.Tube.time(closed)}"
    )
  end

  defp echo(tube) do
    round_trip = fn ->
      with :ok <- Tube.send(tube, @message, 5_000), do: Tube.recv(tube, 5_000)
    end

    case timed(round_trip, "echo") do
      {us, @message} -> us
      {_us, _other} -> Mix.raise("echo: another message came back")
    end
  end

  defp timed(fun, what) do
    case :timer.tc(fun) do
      {us, :ok} -> {us, nil}
      {us, {:ok, result}} -> {us, result}
      {_us, {:error, reason}} -> failed(what, reason)
    end
  end

  @spec failed(String.t(), Tube.Error.reason()) :: no_return
  defp failed(what, reason), do: Mix.raise("#{what}: #{Tube.Error.message(reason)}")
end
