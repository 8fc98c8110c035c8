defmodule Tube.Test.VM.Actor do
  @moduledoc false
  # The part of `Tube.Test.VM.run/3` inside the VM: named processes that run one function after
  # another and keep what the functions open.

  @spec run(atom, (() -> term)) ::
          {:ok, term} | {:raised, :error | :exit | :throw, term, list} | {:died, term}
  def run(name, fun) do
    pid = ensure(registered(name))
    monitor = Process.monitor(pid)
    send(pid, {__MODULE__, :run, self(), monitor, fun})

    receive do
      {^monitor, outcome} ->
        Process.demonitor(monitor, [:flush])
        outcome

      {:DOWN, ^monitor, :process, ^pid, reason} ->
        {:died, reason}
    end
  end

  @spec stop(atom, term) :: :ok
  def stop(name, reason), do: end_registered(registered(name), reason)

  @spec stop_all() :: :ok
  def stop_all do
    prefix = Atom.to_string(registered(""))

    for name <- Process.registered(),
        String.starts_with?(Atom.to_string(name), prefix),
        do: end_registered(name, :kill)

    :ok
  end

  defp end_registered(registered, reason) do
    case Process.whereis(registered) do
      nil ->
        :ok

      pid ->
        monitor = Process.monitor(pid)
        Process.exit(pid, reason)
        receive do: ({:DOWN, ^monitor, :process, ^pid, _reason} -> :ok)
    end
  end

  # Like init:stop/0, which would wait a whole second for OTP's peer.
  @spec leave() :: no_return
  def leave do
    :logger.set_primary_config(:level, :none)

    for {app, _description, _version} <- :application.which_applications(),
        # Elixir's logger would set the level back.
        app not in [:kernel, :stdlib, :logger],
        do: :application.stop(app)

    :erlang.halt(0)
  end

  defp registered(name), do: :"#{inspect(__MODULE__)}.#{name}"

  defp ensure(name) do
    with nil <- Process.whereis(name) do
      pid = spawn(&loop/0)

      try do
        Process.register(pid, name)
        pid
      rescue
        # Another caller registered the name first.
        ArgumentError ->
          Process.exit(pid, :kill)
          ensure(name)
      end
    end
  end

  # Receives only requests: all other messages in the mailbox belong to the functions.
  defp loop do
    receive do
      {__MODULE__, :run, from, ref, fun} ->
        outcome =
          try do
            {:ok, fun.()}
          catch
            kind, reason -> {:raised, kind, reason, __STACKTRACE__}
          end

        send(from, {ref, outcome})
        loop()
    end
  end
end
