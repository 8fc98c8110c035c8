defmodule Tube.Application do
  @moduledoc false
  # The processes of the library. All of them idle until the first tube or listener: starting
  # the application neither attaches to a platform nor starts a hub.
  #
  #     Tube.Supervisor (rest_for_one)
  #     ├── Tube.Registry      tubes by number, and the numbers that nocks have taken
  #     ├── Tube.Domain        this VM as a domain: platform, store connection, re-attaching
  #     ├── Tube.Connections   a process per tube
  #     ├── Tube.Door          what lets knocks in
  #     └── Tube.Listeners     a process per service listened to

  use Application

  @impl true
  def start(_type, _args) do
    children = [
      {Registry, keys: :unique, name: Tube.Registry},
      Tube.Domain,
      {DynamicSupervisor, name: Tube.Connections, strategy: :one_for_one},
      Tube.Door,
      {DynamicSupervisor, name: Tube.Listeners, strategy: :one_for_one}
    ]

    Supervisor.start_link(children, strategy: :rest_for_one, name: Tube.Supervisor)
  end
end
