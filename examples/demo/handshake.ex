defmodule Tube.Demo.Handshake do
  @moduledoc false
  # The handshake as it happens, by Erlang's own tracing: each VM tells which operations its
  # tube's process carries out, and when. Nothing is slowed down or put into the library for it.

  alias Tube.Demo.Screen
  alias Tube.Test.VM

  @traced {Tube.Connection.Operation, :carry_out, 2}
  # XenbusState, in decimal as it stands in the store.
  @states %{
    "1" => "Initialising",
    "2" => "InitWait",
    "3" => "Initialised",
    "4" => "Connected",
    "5" => "Closing",
    "6" => "Closed"
  }

  @doc "Begins to trace a VM; what it sees waits there, in a process of its own."
  @spec trace(VM.t()) :: :ok
  def trace(vm) do
    VM.run(vm, &begin/0, as: :trace)
  end

  @doc "Prints what the VMs did since `trace/1` or the last `show/1`, merged by the clock."
  @spec show([VM.t()]) :: [String.t()]
  def show(vms) do
    events =
      for vm <- vms, {at, operation} <- VM.run(vm, &collect/0, as: :trace), reduce: [] do
        events -> for(text <- describe(operation), do: {at, vm.domid, text}) ++ events
      end
      # In its own order within a moment.
      |> Enum.reverse()
      |> Enum.sort_by(fn {at, _domid, _text} -> at end)

    case events do
      [] ->
        raise "no operation of a handshake was seen"

      [{began, _domid, _text} | _rest] ->
        for {at, domid, text} <- events do
          ms = :erlang.float_to_binary((at - began) / 1000, decimals: 2)
          Screen.line("#{String.pad_leading(ms, 8)} ms  domain #{domid}  #{text}")
        end

        for {_at, _domid, text} <- events, do: text
    end
  end

  ## In the traced VM

  defp begin do
    {module, function, arity} = @traced
    {:module, ^module} = Code.ensure_loaded(module)
    # The operation is all that is wanted, not the state of the process beside it.
    matching = [{[:"$1", :_], [], [{:message, :"$1"}]}]
    1 = :erlang.trace_pattern({module, function, arity}, matching, [:local])
    _processes = :erlang.trace(:all, true, [:call, :arity, :timestamp])
    :ok
  end

  defp collect do
    delivered = :erlang.trace_delivered(:all)
    receive do: ({:trace_delivered, :all, ^delivered} -> :ok)
    drain([])
  end

  defp drain(events) do
    receive do
      {:trace_ts, _pid, :call, @traced, operation, {mega, seconds, micro}} ->
        drain([{(mega * 1_000_000 + seconds) * 1_000_000 + micro, operation} | events])
    after
      0 -> Enum.reverse(events)
    end
  end

  ## In words

  defp describe({:store, _ref, {:transaction, requests}}), do: Enum.flat_map(requests, &written/1)
  defp describe({:store, _ref, request}), do: written(request)
  defp describe({:watch, _token, _path, interest}), do: ["watches #{short(interest)}"]
  defp describe({:allocate, _spec}), do: ["allocates two rings and an event channel"]
  defp describe({:map, _spec}), do: ["maps the rings and binds the channel"]
  defp describe(:listen), do: ["listens to the channel"]
  defp describe(:free), do: ["unmaps the rings and closes the channel"]
  defp describe(_other), do: []

  defp written({:try, request}), do: written(request)

  defp written({:write, path, value}) do
    value = IO.iodata_to_binary(value)

    case {Path.basename(path), @states} do
      {"state", %{^value => name}} -> ["#{short(path)} = #{value}  #{name}"]
      _other -> ["#{short(path)} = #{short(value)}"]
    end
  end

  defp written({:rm, path}), do: ["removes #{short(path)}"]
  defp written(_reads), do: []

  # All lie below it, and the line is long enough.
  defp short(path), do: String.replace_prefix(path, "/local/domain/", ".../")
end
