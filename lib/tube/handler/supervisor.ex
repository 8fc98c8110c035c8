defmodule Tube.Handler.Supervisor do
  @moduledoc """
  Listens to a service and runs a `Tube.Handler` for each tube that comes in.

      children = [{Tube.Handler.Supervisor, handler: Echo, service: "echo"}]

  Below it:

      Tube.Handler.Supervisor (rest_for_one)
      ├── connections     a process per tube, not restarted
      ├── listener        as of Tube.start_link/1
      └── acceptor        hands tubes from the listener to the connections

  ## Options

    * `:handler` - the module with the callbacks; required
    * `:state` - what the first callback of each connection gets as its state (default `nil`)
    * `:active` - how many messages may wait in the mailbox of a connection: a number from 1 to 32767,
      `:once` for one, or `true` for no bound (default `32`)
    * `:max_connections` - connections at a time. As long as there are as many, no tube is accepted: up to
      `:backlog` wait, and further ones are refused (default `:infinity`)
    * `:shutdown` - milliseconds that connections have for ending in good order when this supervisor is
      stopped (default `15000`)
    * `:name` - name to register this supervisor under
    * `:id` - of the child specification (default `{Tube.Handler.Supervisor, service}`)

  and all options of `Tube.listen/1` but `:active` and `mode: :port`.

  ## Stopping

  When this supervisor is stopped, as by the end of the application, it accepts nothing more and
  ends all connections at once, each in good order: what had already arrived is handled, then
  `c:Tube.Handler.handle_shutdown/2` is called, the tube is closed, and what was sent is delivered. Who is
  not done after `:shutdown` milliseconds handles no more messages; who is not done a second later is
  killed, which closes its tube too.
  """

  use Supervisor

  alias Tube.Handler.{Acceptor, Settings}

  @doc """
  A child specification. Options are those above; bad ones raise `ArgumentError`.

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
  Starts to listen and to accept, linked to the calling process.

      {:ok, supervisor} = Tube.Handler.Supervisor.start_link(handler: Echo, service: "echo")

  Errors: those of `Tube.listen/1` (in the report of a supervisor that could not start its child),
  `{:already_started, pid}`. Bad options raise `ArgumentError`.
  """
  @spec start_link(keyword) :: Supervisor.on_start()
  def start_link(options) do
    settings = Settings.validate!(options)
    Supervisor.start_link(__MODULE__, settings, Keyword.take(options, [:name]))
  end

  @doc """
  The processes of all connections that there are now.

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
    # The listener's and the connections' names are not known to anybody else: asked for at each start,
    # by the acceptor, when this process has its children.
    me = self()
    of = fn id -> fn -> child(me, id) end end

    children = [
      %{
        id: :connections,
        start: {DynamicSupervisor, :start_link, [[strategy: :one_for_one]]},
        type: :supervisor,
        shutdown: :infinity
      },
      Supervisor.child_spec({Tube, settings.listen}, id: :listener),
      {Acceptor, {of.(:listener), of.(:connections), settings}}
    ]

    Supervisor.init(children, strategy: :rest_for_one)
  end

  defp child(supervisor, id) do
    {^id, pid, _type, _modules} = supervisor |> Supervisor.which_children() |> List.keyfind(id, 0)

    pid
  end
end
