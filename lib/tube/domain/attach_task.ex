defmodule Tube.Domain.AttachTask do
  @moduledoc false
  # One attempt to attach. It may take seconds, so a process of its own runs it; what it gives is
  # not tied to that process.

  alias Tube.Domain.Settings
  alias Tube.Domain.Hub
  alias Tube.Native

  @typedoc "`store` is a stream for which a port has to be opened."
  @type result ::
          {:attached, Native.platform(), domid :: Tube.Paths.domid(), store :: Native.id()}
          | {:reopened, store :: Native.id()}
          | {:error, {atom(), String.t()}}

  # What it looks like when there is no hub: no socket, one that a killed hub left, or one that is
  # just being closed.
  @no_hub [:enoent, :econnrefused, :hub_gone]

  @doc "Becomes a domain; starts a hub if there is none and it may."
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

  @doc "Makes a new connection to the store for a domain that still lives."
  @spec reopen(Native.platform()) :: result()
  def reopen(platform) do
    case Native.xenbus(platform) do
      {:ok, store} -> {:reopened, store}
      {:error, reason} -> {:error, {reason, "the store: #{:file.format_error(reason)}"}}
    end
  end

  @doc "Gives back what nobody wants any more."
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
             # Once: a hub that was started and is not there has something to say in its log.
             do: attach(settings, fn _run_dir -> {:error, {:no_hub, text}} end)

      result ->
        result
    end
  end
end
