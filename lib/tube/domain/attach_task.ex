defmodule Tube.Domain.AttachTask do
  @moduledoc false
  # One attempt to attach. It may take seconds, so a separate process runs it. The result does not
  # depend on that process.

  alias Tube.Domain.Settings
  alias Tube.Domain.Hub
  alias Tube.Native

  @typedoc "`store` is a stream that still needs a port."
  @type result ::
          {:attached, Native.platform(), domid :: Tube.Paths.domid(), store :: Native.id()}
          | {:reopened, store :: Native.id()}
          | {:error, {atom(), String.t()}}

  # There is no hub: no socket, the socket of a killed hub, or one that is just being closed.
  @no_hub [:enoent, :econnrefused, :hub_gone]

  @doc "Becomes a domain. Starts a hub if there is none and this VM may start one."
  @spec attach(Settings.t()) :: result()
  def attach(settings) do
    with {:ok, platform, domid} <- attach(settings, &Hub.start/1) do
      case reopen(platform) do
        {:reopened, store} ->
          {:attached, platform, domid, store}

        error ->
          Native.detach(platform)
          error
      end
    end
  end

  @doc "Makes a new connection to the store, for a domain that still lives."
  @spec reopen(Native.platform()) :: result()
  def reopen(platform) do
    case Native.xenbus(platform) do
      {:ok, store} -> {:reopened, store}
      {:error, reason} -> {:error, {reason, "the store: #{:file.format_error(reason)}"}}
    end
  end

  @doc "Releases a result that is not needed any more."
  @spec undo(result()) :: :ok
  def undo({:attached, platform, _domid, store}) do
    Native.stream_free(store)
    Native.detach(platform)
  end

  def undo({:reopened, store}), do: Native.stream_free(store)
  def undo({:error, _reason}), do: :ok

  defp attach(%{platform: :xen} = settings, _start_hub),
    do: Native.attach(:xen, "", settings.domid || -1)

  defp attach(settings, start_hub) do
    case Native.attach(:local, settings.run_dir, settings.domid || -1) do
      {:error, {reason, text}} when reason in @no_hub ->
        with :ok <- start_hub.(settings.run_dir),
             # Only once: if the started hub is gone again, its log says why.
             do: attach(settings, fn _run_dir -> {:error, {:no_hub, text}} end)

      result ->
        result
    end
  end
end
