defmodule Mix.Tasks.Tube.Bench do
  @shortdoc "Measures tubes on this machine"

  @moduledoc """
  Measures tubes on this machine, with this VM at both ends: messages and bytes per second for three
  sizes, and the time of a round trip.

      mix tube.bench [--ms MILLISECONDS]

  `--ms` is the duration of each of the four measurements, by default 1000. Here both ends share the
  schedulers of one VM; `bin/bench tube` of the project measures two VMs, and compares with sockets.
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
    Mix.Tube.table([["SIZE", "MSG/S", "MB/S"] | rows])

    Mix.shell().info(
      "round trip, 64 bytes: #{Mix.Tube.time(round_trip(me, listener, ms))} median"
    )
  end

  defp stream(me, listener, size, ms) do
    message = :binary.copy(<<0>>, size)

    {count, us} =
      between(me, listener, &receive_all/1, fn tube ->
        began = System.monotonic_time(:microsecond)
        count = send_until(tube, message, began + ms * 1_000, 0)
        :ok = Tube.shutdown(tube, :write)
        # The other side closes when it has received everything.
        {:error, :closed} = Tube.recv(tube)
        {count, System.monotonic_time(:microsecond) - began}
      end)

    ["#{size}", "#{round(count * 1_000_000 / us)}", "#{Float.round(count * size / us, 1)}"]
  end

  defp send_until(tube, message, until, count) do
    :ok = Tube.send(tube, message)

    # Reading the clock for each message would distort the result.
    if rem(count, 64) == 63 and System.monotonic_time(:microsecond) >= until,
      do: count + 1,
      else: send_until(tube, message, until, count + 1)
  end

  defp receive_all(tube) do
    case Tube.recv_many(tube) do
      {:ok, _messages} -> receive_all(tube)
      {:error, :closed} -> :ok
    end
  end

  defp round_trip(me, listener, ms) do
    between(me, listener, &echo/1, fn tube ->
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

  # Opens a tube from this VM to itself, and runs `tip` and `nock` at its ends.
  defp between(me, listener, tip, nock) do
    accepting =
      Task.async(fn ->
        {:ok, tube} = Tube.accept(listener)
        tip.(tube)
        Tube.close(tube)
      end)

    {:ok, tube} = ok!(Tube.open(me, @open))
    result = nock.(tube)
    Tube.close(tube)
    Task.await(accepting, :infinity)
    result
  end

  defp ok!({:ok, _value} = ok), do: ok
  defp ok!({:error, reason}), do: Mix.raise(Tube.Error.message(reason))
end
