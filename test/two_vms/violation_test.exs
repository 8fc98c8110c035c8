defmodule Tube.TwoVMs.ViolationTest do
  # A peer that writes impossible values into the shared pages: the tube ends, the owner learns why,
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

  for mode <- [:tube, :port], active <- [true, false], finder <- [:sender, :receiver] do
    test "#{mode}, active: #{active}, found by the #{finder}", %{tip: tip, nock: nock} do
      VM.run(tip, fn -> {:ok, _listener} = Tube.listen(active: false) end)
      tube = VM.run(nock, fn -> open(mode: unquote(mode), active: false, ring: 4096) end)
      VM.run(tip, fn -> {:ok, _tube} = accept() end)
      assert VM.run(tip, fn -> corrupt(unquote(finder)) end) == 2

      VM.run(nock, fn ->
        # This polls the ring.
        :ok = Tube.setopts(tube, active: unquote(active))
        find(tube, unquote(finder), unquote(active))
        assert reason(tube, unquote(mode), unquote(active)) == :protocol
        true!(fn -> not Process.alive?(tube.pid) end)
        assert Tube.list() == []
        true!(fn -> match?(%{links: 0, pages: 0}, Tube.Native.live_counts()) end)
      end)
    end
  end

  defp open(options) do
    Process.flag(:trap_exit, true)
    {:ok, tube} = Tube.open(5, options)
    tube
  end

  defp accept do
    [listener] = for {_, pid, _, _} <- DynamicSupervisor.which_children(Tube.Listeners), do: pid
    Tube.accept(listener, 5_000)
  end

  # The ring has room for four of these: then the sender needs the consumer's index.
  defp find(tube, :sender, _active) do
    errors = for _ <- 1..100, do: Tube.send(tube, :binary.copy("x", 1000), 5_000)
    assert {:error, _protocol_or_closed} = List.last(errors)
  end

  defp find(tube, :receiver, false), do: {:error, :protocol} = Tube.recv(tube, 5_000)
  defp find(_tube, :receiver, true), do: :ok

  # How the owner learns of it: by messages, by asking, or by an exit signal.
  defp reason(tube, :tube, true) do
    assert_receive {:tube_error, ^tube, reason}, 5_000
    assert_receive {:tube_closed, ^tube}, 5_000
    reason
  end

  defp reason(tube, :tube, false) do
    case Tube.recv(tube, 5_000) do
      {:error, :protocol} -> :protocol
      # The call that found it has told it; the tube has ended since.
      {:error, :closed} -> :protocol
    end
  end

  defp reason(%{pid: pid}, :port, _active) do
    assert_receive {:EXIT, ^pid, reason}, 5_000
    reason
  end

  # Writes an impossible index (docs/wire.md, section 2) into every control page that this VM has mapped:
  # the consumer's, which a sender reads, or the producer's. Returns how many pages there are.
  defp corrupt(finder) do
    index = %{sender: 0x100, receiver: 0x80}[finder]
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
        do: :ok = :file.pwrite(memory, address + index, <<0x7FFFFFF8::little-32>>)

    :ok = :file.close(memory)
    length(pages)
  end
end
