defmodule Tube.Connection do
  @moduledoc false
  # Calls to the process of a tube, `Tube.Connection.Server`, from its owner and the rest of the library.

  alias Tube.Connection.{BusyPoller, Owner, Server}
  alias Tube.{Domain, Handshake}

  @type reason :: Tube.Error.reason()

  ## Starting

  @doc "Opens a tube. The calling process owns it."
  @spec open(Tube.domid(), Tube.Options.t()) :: {:ok, Tube.t()} | {:error, reason}
  def open(peer, options) do
    with {:ok, domain} <- Domain.attach(),
         {:ok, pid} <- start({:nock, domain, peer, options, self()}) do
      call(pid, :await)
    end
  end

  @doc """
  Starts the tip's side of an open request, on behalf of the calling process, the dispatcher.

  The new process sends `{:tube_ready, tube}` to `listener` when the tube is connected, and
  `{:tip_done, pid}` to the dispatcher when it no longer needs the store.
  """
  @spec start_tip(Domain.t(), Handshake.OpenRequest.t(), Tube.Options.t(), pid, term) ::
          {:ok, pid} | {:error, reason}
  def start_tip(domain, request, options, listener, verdict) do
    start({:tip, domain, request, options, listener, self(), verdict})
  end

  defp start(args) do
    case DynamicSupervisor.start_child(Tube.Connections, {Server, args}) do
      {:error, {:shutdown, reason}} -> {:error, reason}
      started -> started
    end
  end

  ## Calls of the owner

  @doc "Gives the tube to `new_owner`, with the tube's messages in the caller's mailbox."
  @spec give(Tube.t(), pid) :: :ok | {:error, reason}
  def give(tube, new_owner) do
    # Check the new owner before anything moves: messages to a dead process are lost.
    with {:ok, active} <- call(tube.pid, {:hold, new_owner}) do
      # The tube is passive now, so no message follows those that are forwarded here.
      Owner.forward(tube, new_owner)
      call(tube.pid, {:give, new_owner, active})
    end
  end

  @doc "Gives a tube to the process that accepts it. Called by its listener."
  @spec hand_over(Tube.t(), pid) :: :ok | {:error, reason}
  def hand_over(tube, new_owner), do: call(tube.pid, {:give, new_owner, :initial})

  @doc "Sets the options that the driver does not know."
  @spec set(Tube.t(), %{
          optional(:send_timeout) => timeout,
          optional(:poll) => BusyPoller.option()
        }) ::
          :ok | {:error, reason}
  def set(tube, options), do: call(tube.pid, {:set, options})

  @doc "Ends our direction: no more is sent. The other direction stays open."
  @spec shutdown(Tube.t()) :: :ok | {:error, reason}
  def shutdown(tube), do: call(tube.pid, :shutdown)

  @spec close(Tube.t()) :: :ok | {:error, reason}
  def close(tube), do: call(tube.pid, :close)

  @doc """
  Ends a tube because the machine will be suspended. When this returns, after `ms` at most, nothing is
  shared any more; the owner can still take what had arrived. Returns false if time ran out.
  """
  @spec suspend(pid, non_neg_integer) :: boolean
  def suspend(pid, ms), do: call(pid, {:suspend, ms}) != {:ok, :cut_short}

  @doc "Returns the current options."
  @spec options(Tube.t()) :: {:ok, Tube.Options.t()} | {:error, reason}
  def options(tube), do: call(tube.pid, :options)

  @spec info(Tube.t()) :: {:ok, map} | {:error, reason}
  def info(tube), do: call(tube.pid, :info)

  @doc "Calls the process. Each of its waits has a limit, so the call needs none."
  @spec call(pid, term) :: term
  def call(pid, request) do
    GenServer.call(pid, request, :infinity)
  catch
    :exit, _gone -> {:error, :closed}
  end
end
