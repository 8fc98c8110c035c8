defmodule Tube.Xenstore.Stream do
  @moduledoc false
  # The transport over a descriptor that the platform opened. A port of the native driver serves it,
  # one read and one write at a time.

  @behaviour Tube.Xenstore.Transport

  alias Tube.Native
  alias Tube.Xenstore.Wire.Codec

  # The device's buffer also holds the header.
  @header_size 16

  @impl true
  def open({id, kind}) when kind in [:socket, :device] do
    {:ok, {Native.Driver.open_stream(id), kind}}
  rescue
    # The stream has been freed, or another build of the library made it.
    error in [ArgumentError, ErlangError] -> {:error, Exception.message(error)}
  end

  # Never suspends: a client that waited here could not read either, and a store with replies queued
  # for us may not read until we do.
  @impl true
  def send({port, _kind}, packet) do
    if :erlang.port_command(port, packet, [:nosuspend]), do: :ok, else: :busy
  rescue
    ArgumentError -> {:error, :closed}
  end

  @impl true
  def event({port, _kind}, {port, {:data, bytes}}), do: {:data, bytes}
  def event({port, _kind}, {:EXIT, port, reason}), do: {:closed, reason}
  def event(_handle, _message), do: :other

  @impl true
  def max_payload({_port, :socket}), do: Codec.max_payload()
  def max_payload({_port, :device}), do: Codec.max_payload() - @header_size

  @impl true
  def close({port, _kind}) do
    Port.close(port)
    :ok
  rescue
    ArgumentError -> :ok
  end
end
