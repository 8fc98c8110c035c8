defmodule Tube.Handler.Supervisor do
  @moduledoc """
  Listens to a service and runs a `Tube.Handler` for each accepted tube.

      children = [{Tube.Handler.Supervisor, handler: Echo, service: "echo"}]

  Its children:

      Tube.Handler.Supervisor (rest_for_one)
      ├── connections     a process per tube, not restarted
      ├── listener        as from Tube.start_link/1
      └── acceptor        hands tubes from the listener to the connections

  ## Options

    * `:handler` - the module with the callbacks; required
    * `:state` - the initial state of each connection (default `nil`)
    * `:active` - how many messages may wait in the mailbox of a connection: a number from 1 to
      32767, `:once` for one, or `true` for no limit (default `32`)
    * `:max_connections` - number of connections at a time. At the limit no tube is accepted: up to
      `:backlog` tubes wait, and further ones are refused (default `:infinity`)
    * `:shutdown` - milliseconds that connections have for an orderly end when this supervisor stops
      (default `15000`)
    * `:name` - name to register this supervisor under
    * `:id` - the id of the child specification (default `{Tube.Handler.Supervisor, service}`)

  and all options of `Tube.listen/1` except `:active` and `mode: :port`.

  ## Stopping

  When this supervisor stops, for example because the application stops, it accepts no more tubes
  and ends all connections at once, each in order: the connection handles the messages that have
  arrived, calls `c:Tube.Handler.handle_shutdown/2` and closes its tube, and sent messages are
  delivered. After `:shutdown` milliseconds a connection handles no more messages. If it has not
  ended a second later, it is killed, which closes its tube too.
  """

  use Supervisor

  alias Tube.Handler.{Acceptor, Settings}

  @doc """
  Returns a child specification. Takes the options above; invalid ones raise `ArgumentError`.

      iex> defmodule Silent, do: use Tube.Handler
      iex> Tube.Handler.Supervisor.child_spec(handler: Silent, service: "echo").id
      {Tube.Handler.Supervisor, "echo"}
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    {id, options} = Tube.Options.id!(options, :start_link)
    Settings.validate!(options)

    %{
      id: id || {__MODULE__, options[:service] || "default"},
      start: {__MODULE__, :start_link, [options]},
      type: :supervisor
    }
  end

  @doc """
  Starts listening and accepting, linked to the calling process.

      {:ok, supervisor} = Tube.Handler.Supervisor.start_link(handler: Echo, service: "echo")

  Errors: those of `Tube.listen/1` (in the report of a supervisor that could not start its child),
  `{:already_started, pid}`. Invalid options raise `ArgumentError`.
  """
  @spec start_link(keyword) :: Supervisor.on_start()
  def start_link(options) do
    settings = Settings.validate!(options)
    Supervisor.start_link(__MODULE__, settings, Keyword.take(options, [:name]))
  end

  @doc """
  Returns the pids of all current connections.

      length(Tube.Handler.Supervisor.connections(supervisor))
  """
  @spec connections(Supervisor.supervisor()) :: [pid]
  def connections(supervisor) do
    for {_id, pid, _type, _modules} <-
          supervisor |> child(:connections) |> DynamicSupervisor.which_children(),
        is_pid(pid),
        do: pid
  end

  @impl true
  def init(settings) do
    # The listener and the connections have no names. The acceptor looks them up whenever it starts,
    # when this process has started them.
    me = self()
    lookup = fn id -> fn -> child(me, id) end end

    children = [
      %{
        id: :connections,
        start: {DynamicSupervisor, :start_link, [[strategy: :one_for_one]]},
        type: :supervisor,
        shutdown: :infinity
      },
      Supervisor.child_spec({Tube, settings.listen}, id: :listener),
      {Acceptor, {lookup.(:listener), lookup.(:connections), settings}}
    ]

    Supervisor.init(children, strategy: :rest_for_one)
  end

  defp child(supervisor, id) do
    {^id, pid, _type, _modules} = supervisor |> Supervisor.which_children() |> List.keyfind(id, 0)

    pid
  end
end
