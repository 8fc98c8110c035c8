# An echo service and a client, over a tube.
#
#     mix run examples/echo.exs                               both in one VM
#     TUBE_DOMID=5 mix run --no-halt examples/echo.exs serve  in separate VMs
#     TUBE_DOMID=7 mix run examples/echo.exs ask 5 hello

defmodule Echo do
  use Tube.Handler

  @impl true
  def handle_connection(tube, state) do
    {:ok, %{domid: domid}} = Tube.peer(tube)
    IO.puts("echo: domain #{domid} is connected")
    {:continue, state}
  end

  @impl true
  def handle_data(data, tube, state) do
    case Tube.send(tube, data) do
      :ok -> {:continue, state}
      {:error, reason} -> {:error, reason, state}
    end
  end

  @impl true
  def handle_close(_tube, _state), do: IO.puts("echo: closed")

  def serve do
    children = [{Tube.Handler.Supervisor, handler: Echo, service: "echo"}]
    {:ok, _supervisor} = Supervisor.start_link(children, strategy: :one_for_one)
    {:ok, domid} = Tube.domid()
    domid
  end

  def ask(domid, text) do
    {:ok, tube} = Tube.open(domid, service: "echo", active: false)
    :ok = Tube.send(tube, text)
    {:ok, reply} = Tube.recv(tube, 5_000)
    IO.puts("asked #{inspect(text)}, heard #{inspect(reply)} through #{inspect(tube)}")
    :ok = Tube.close(tube)
  end
end

case System.argv() do
  [] -> Echo.serve() |> Echo.ask("hello")
  ["serve"] -> IO.puts("domain #{Echo.serve()} echoes")
  ["ask", domid, text] -> Echo.ask(String.to_integer(domid), text)
end
