defmodule Tube.Domain.Attempt do
  @moduledoc false
  # One attempt to attach. It may take seconds, so a process of its own runs it; what it gives is
  # not tied to that process.

  alias Tube.Domain.Settings
  alias Tube.{Hub, Native}

  @typedoc "`life` and `store` are streams for which a port has to be opened."
  @type result ::
          {:ok,
           %{
             platform: Native.platform(),
             domid: 0..0x7FEF,
             life: Native.id(),
             store: Native.id()
           }}
          | {:error, {atom(), String.t()}}

  # What it looks like when there is no hub: no socket, one that a killed hub left, or one that is
  # just being closed.
  @no_hub [:enoent, :econnrefused, :hub_gone]

  @doc "Becomes a domain; starts a hub if there is none and it may."
  @spec attach(Settings.t()) :: result()
  def attach(settings) do
    with {:ok, platform, domid} <- attach(settings, &Hub.start/1) do
      with {:ok, life} <- stream(Native.life(platform), "the domain's life"),
           {:ok, store} <- open_store(platform, life) do
        {:ok, %{platform: platform, domid: domid, life: life, store: store}}
      else
        error ->
          Native.detach(platform)
          error
      end
    end
  end

  @doc "Makes a new connection to the store for a domain that still lives."
  @spec reopen(Native.platform()) :: {:ok, Native.id()} | {:error, {atom(), String.t()}}
  def reopen(platform), do: stream(Native.xenbus(platform), "the store")

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

  defp open_store(platform, life) do
    with {:error, _} = error <- reopen(platform) do
      Native.stream_free(life)
      error
    end
  end

  defp stream({:ok, id}, _what), do: {:ok, id}

  defp stream({:error, reason}, what),
    do: {:error, {reason, "#{what}: #{:file.format_error(reason)}"}}
end
