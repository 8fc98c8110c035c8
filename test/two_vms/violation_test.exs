defmodule Tube.TwoVMs.ViolationTest do
  # A peer that writes impossible values into the shared pages: the tube ends, the owner is told why,
  # and nothing stays behind, in every mode and whatever the owner does.
  use ExUnit.Case, async: true
  use Tube.Test.VM

  import Tube.Test.Eventually
  import Tube.Test.RunDir

  # Through /proc/self/mem and the mapped memfds of the local platform.
  @moduletag :hub

  setup :fresh_run_dir

  setup %{run_dir: run_dir} do
    %{tip: VM.start!(run_dir: run_dir, domid: 5), nock: VM.start!(run_dir: run_dir, domid: 7)}
  end

  for mode <- [:tube, :port], active <- [true, false] do
    test "mode #{inspect(mode)}, active: #{active}", %{tip: tip, nock: nock} do
      VM.run(tip, fn -> {:ok, _listener} = Tube.listen(active: false) end)
      options = [mode: unquote(mode), active: unquote(active), ring: 4096]
      tube = VM.run(nock, fn -> open(options) end)
      VM.run(tip, fn -> {:ok, _tube} = receive_accepted() end)
      assert VM.run(tip, fn -> corrupt() end) == 2
      assert VM.run(nock, fn -> send_until_error(tube) end) == {:error, :protocol}

      VM.run(nock, fn -> assert told(tube, unquote(mode), unquote(active)) == :protocol end)
      VM.run(nock, fn -> true!(fn -> not Process.alive?(tube.pid) end) end)
      VM.run(nock, fn -> assert Tube.list() == [] end)

      true!(fn ->
        match?(%{links: 0, pages: 0}, VM.call(nock, Tube.Native, :live_counts, []))
      end)
    end
  end

  defp open(options) do
    Process.flag(:trap_exit, true)
    {:ok, tube} = Tube.open(5, options)
    tube
  end

  defp receive_accepted do
    [listener] = for {_, pid, _, _} <- DynamicSupervisor.which_children(Tube.Listeners), do: pid
    Tube.accept(listener, 5_000)
  end

  # The ring holds four pages of this: then the sender needs the consumer's index.
  defp send_until_error(tube) do
    1..100
    |> Enum.map(fn _ -> Tube.send(tube, :binary.copy("x", 1000), 5_000) end)
    |> Enum.find(&(&1 != :ok))
  end

  # How the owner learns of it: by messages, by asking, or by an exit signal.
  defp told(tube, :tube, true) do
    assert_receive {:tube_error, ^tube, reason}, 5_000
    assert_receive {:tube_closed, ^tube}, 5_000
    reason
  end

  defp told(tube, :tube, false) do
    {:error, reason} = Tube.recv(tube, 5_000)
    reason
  end

  defp told(%{pid: pid}, :port, _active) do
    assert_receive {:EXIT, ^pid, reason}, 5_000
    reason
  end

  # Writes an impossible consumer's index (docs/wire.md, section 2) into every control page that this
  # VM has mapped, and returns how many there are.
  defp corrupt do
    {:ok, memory} = :file.open(~c"/proc/self/mem", [:read, :write, :raw, :binary])

    pages =
      for line <- File.stream!("/proc/self/maps"),
          line =~ "memfd:",
          [range, "rw" <> _ | _] <- [String.split(line)],
          [from, to] = range |> String.split("-") |> Enum.map(&String.to_integer(&1, 16)),
          address <- from..(to - 1)//4096,
          :file.pread(memory, address, 4) == {:ok, "Tube"},
          do: address

    for address <- pages,
        do: :ok = :file.pwrite(memory, address + 0x100, <<0x7FFFFFF8::little-32>>)

    :ok = :file.close(memory)
    length(pages)
  end
end
