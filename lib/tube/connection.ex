defmodule Tube.Connection do
  @moduledoc false
  # One tube, as its owner and the rest of the library speak with it: calls of its process,
  # `Tube.Connection.Server`, and what is registered of it.

  alias Tube.Connection.{BusyPoller, Owner, Server}
  alias Tube.{Domain, Handshake}

  @type reason :: Tube.Error.reason()

  ## Starting

  @doc "A tube that the calling process asks for."
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
  `{:tip_done, pid}` to the dispatcher when it needs the store no longer, or ends.
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

  @doc "Hands the tube to `new_owner`, and with it what waits in the caller's mailbox."
  @spec give(Tube.t(), pid) :: :ok | {:error, reason}
  def give(tube, new_owner) do
    # Asked before anything moves: what is sent to a process that is no more is lost.
    with {:ok, active} <- call(tube.pid, {:hold, new_owner}) do
      # Passive now, so nothing follows what is forwarded here.
      Owner.forward(tube, new_owner)
      call(tube.pid, {:give, new_owner, active})
    end
  end

  @doc "Gives a tube that waited to be accepted to who accepts it. Called by its listener."
  @spec hand_over(Tube.t(), pid) :: :ok | {:error, reason}
  def hand_over(tube, new_owner), do: call(tube.pid, {:give, new_owner, :initial})

  @doc "Sets what of the options is not the driver's to know."
  @spec set(Tube.t(), %{
          optional(:send_timeout) => timeout,
          optional(:poll) => BusyPoller.option()
        }) ::
          :ok | {:error, reason}
  def set(tube, options), do: call(tube.pid, {:set, options})

  @doc "Says that no more will be sent; the other direction stays as it is."
  @spec shutdown(Tube.t()) :: :ok | {:error, reason}
  def shutdown(tube), do: call(tube.pid, :shutdown)

  @spec close(Tube.t()) :: :ok | {:error, reason}
  def close(tube), do: call(tube.pid, :close)

  @doc """
  Ends a tube because the machine is to be suspended. When this returns, after `ms` at most, nothing is
  shared any more; its owner is still served with what had arrived. Was it done in good order?
  """
  @spec suspend(pid, non_neg_integer) :: boolean
  def suspend(pid, ms), do: call(pid, {:suspend, ms}) != {:ok, :cut_short}

  @doc "The options as they are now."
  @spec options(Tube.t()) :: {:ok, Tube.Options.t()} | {:error, reason}
  def options(tube), do: call(tube.pid, :options)

  @spec info(Tube.t()) :: {:ok, map} | {:error, reason}
  def info(tube), do: call(tube.pid, :info)

  @doc "Every wait in here has a limit of its own, so that the caller needs none."
  @spec call(pid, term) :: term
  def call(pid, request) do
    GenServer.call(pid, request, :infinity)
  catch
    :exit, _gone -> {:error, :closed}
  end
end
