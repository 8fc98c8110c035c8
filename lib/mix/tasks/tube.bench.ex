defmodule Mix.Tasks.Tube.Bench do
  @shortdoc "Measures tubes on this machine"

  @moduledoc """
  Measures tubes on this machine, with this VM at both ends: messages and bytes per second of three
  sizes, and how long a message takes there and back.

      mix tube.bench [--ms MILLISECONDS]

  `--ms` is how long each of the four is measured, 1000 unless told. Both ends share one VM's schedulers here;
  `bin/bench tube` of the project measures between two VMs, and beside sockets.
  """
  use Mix.Task

  @service "mix-bench"
  @sizes [64, 1024, 65_536]
  @open [service: @service, active: false]

  @impl true
  def run(args) do
    {options, []} = Mix.Tube.parse!(args, ms: :integer)
    ms = max(options[:ms] || 1_000, 1)
    Mix.Tube.start()
    {:ok, me} = ok!(Tube.domid())
    {:ok, listener} = ok!(Tube.listen(@open))
    rows = for size <- @sizes, do: stream(me, listener, size, ms)
    Mix.Tube.table([["SIZE", "MSG/S", "MB/S"] | rows], [])

    Mix.shell().info(
      "64 bytes there and back: #{Mix.Tube.time(round_trip(me, listener, ms))} in the middle"
    )
  end

  defp stream(me, listener, size, ms) do
    message = :binary.copy(<<0>>, size)

    {count, us} =
      between(me, listener, fn tube -> take(tube) end, fn tube ->
        began = System.monotonic_time(:microsecond)
        count = push(tube, message, began + ms * 1_000, 0)
        :ok = Tube.shutdown(tube, :write)
        # The other side has taken all of it when it closes.
        {:error, :closed} = Tube.recv(tube)
        {count, System.monotonic_time(:microsecond) - began}
      end)

    ["#{size}", "#{round(count * 1_000_000 / us)}", "#{Float.round(count * size / us, 1)}"]
  end

  defp push(tube, message, until, count) do
    :ok = Tube.send(tube, message)

    # A look at the clock for each message would be measured too.
    if rem(count, 64) == 63 and System.monotonic_time(:microsecond) >= until,
      do: count + 1,
      else: push(tube, message, until, count + 1)
  end

  defp take(tube) do
    case Tube.recv_many(tube) do
      {:ok, _messages} -> take(tube)
      {:error, :closed} -> :ok
    end
  end

  defp round_trip(me, listener, ms) do
    between(me, listener, fn tube -> echo(tube) end, fn tube ->
      until = System.monotonic_time(:microsecond) + ms * 1_000
      times = Enum.sort(trips(tube, :binary.copy(<<0>>, 64), until, []))
      Enum.at(times, div(length(times), 2))
    end)
  end

  defp trips(tube, message, until, times) do
    {us, {:ok, ^message}} =
      :timer.tc(fn ->
        :ok = Tube.send(tube, message)
        Tube.recv(tube)
      end)

    if System.monotonic_time(:microsecond) >= until,
      do: [us | times],
      else: trips(tube, message, until, [us | times])
  end

  defp echo(tube) do
    with {:ok, message} <- Tube.recv(tube), :ok <- Tube.send(tube, message), do: echo(tube)
  end

  # A tube of this VM to itself, `there` at the other end of it.
  defp between(me, listener, there, here) do
    other =
      Task.async(fn ->
        {:ok, tube} = Tube.accept(listener)
        there.(tube)
        Tube.close(tube)
      end)

    {:ok, tube} = ok!(Tube.open(me, @open))
    result = here.(tube)
    Tube.close(tube)
    Task.await(other, :infinity)
    result
  end

  defp ok!({:ok, _result} = fine), do: fine
  defp ok!({:error, reason}), do: Mix.raise(Tube.Error.message(reason))
end
