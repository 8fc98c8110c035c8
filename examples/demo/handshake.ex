defmodule Tube.Demo.Handshake do
  @moduledoc false
  # Shows the handshake as it happens, with Erlang's own tracing: each VM reports the operations
  # that its tube's process carries out, and when. The library has no code for it.

  alias Tube.Demo.Screen
  alias Tube.Test.VM

  # The traced functions: one carries out an operation, the others pass an event to the pure machine
  # of either side.
  @operation {Tube.Connection.Effects, :carry_out, 2}
  @events [{Tube.Handshake.Nock, :handle, 2}, {Tube.Handshake.Tip, :handle, 2}]

  # XenbusState, in decimal as in the store.
  @states %{
    "1" => "Initialising",
    "2" => "InitWait",
    "3" => "Initialised",
    "4" => "Connected",
    "5" => "Closing",
    "6" => "Closed"
  }

  @doc "Starts to trace a VM. A separate process there collects the trace."
  @spec trace(VM.t()) :: :ok
  def trace(vm) do
    VM.run(vm, &start_trace/0, as: :trace)
  end

  @doc "Prints the operations of the VMs since `trace/1` or the last `show/1`, merged by time."
  @spec show([VM.t()]) :: [String.t()]
  def show(vms) do
    lines =
      for vm <- vms,
          {at, operation, reply} <- VM.run(vm, &collect/0, as: :trace),
          text <- operation |> describe() |> unless_refused(reply),
          do: {at, vm.domid, text}

    # Stable: the operations of one VM stay in order.
    case Enum.sort_by(lines, fn {at, _domid, _text} -> at end) do
      [] ->
        raise "the trace has no operation of a handshake"

      [{began, _domid, _text} | _rest] = sorted ->
        for {at, domid, text} <- sorted do
          ms = :erlang.float_to_binary((at - began) / 1000, decimals: 2)
          Screen.line("#{String.pad_leading(ms, 8)} ms  domain #{domid}  #{text}")
          text
        end
    end
  end

  ## In the traced VM

  defp start_trace do
    on(@operation, [:"$1", :_], :"$1")
    for handle <- @events, do: on(handle, [:_, :"$1"], :"$1")
    _processes = :erlang.trace(:all, true, [:call, :arity, :timestamp])
    :ok
  end

  # Sends only one argument, not the state of the process.
  defp on({module, _function, _arity} = mfa, head, wanted) do
    {:module, ^module} = Code.ensure_loaded(module)
    1 = :erlang.trace_pattern(mfa, [{head, [], [{:message, wanted}]}], [:local])
  end

  # Operations in order, with their time and the store's reply, if any.
  defp collect do
    delivered = :erlang.trace_delivered(:all)
    receive do: ({:trace_delivered, :all, ^delivered} -> :ok)
    {operations, _unclaimed} = Enum.reduce(drain([]), {[], %{}}, &match/2)
    operations
  end

  # The trace, latest first.
  defp drain(seen) do
    receive do
      {:trace_ts, _pid, :call, mfa, what, {mega, seconds, micro}} ->
        at = (mega * 1_000_000 + seconds) * 1_000_000 + micro
        drain([{at, mfa == @operation, what} | seen])
    after
      0 -> seen
    end
  end

  # Backwards in time, so the reply to a request is the latest one with its reference.
  defp match({_at, false, {:store, ref, result}}, {operations, replies}),
    do: {operations, Map.put(replies, ref, result)}

  defp match({_at, false, _event}, acc), do: acc

  defp match({at, true, {:store, ref, _request} = operation}, {operations, replies}) do
    {reply, replies} = Map.pop(replies, ref)
    {[{at, operation, reply} | operations], replies}
  end

  defp match({at, true, operation}, {operations, replies}),
    do: {[{at, operation, nil} | operations], replies}

  ## Texts

  defp describe({:store, _ref, {:transaction, requests}}), do: Enum.flat_map(requests, &written/1)
  defp describe({:store, _ref, request}), do: written(request)
  defp describe({:watch, _token, _path, interest}), do: ["watches #{short(interest)}"]
  defp describe({:allocate, _spec}), do: ["allocates two rings and an event channel"]
  defp describe({:map, _spec}), do: ["maps the rings and binds the channel"]
  defp describe(:start), do: ["starts the data flow"]
  defp describe(:free), do: ["unmaps the rings and closes the channel"]
  defp describe(_other), do: []

  # A refused transaction has done none of its writes.
  defp unless_refused([], _reply), do: []
  defp unless_refused(texts, {:error, reason}), do: [List.last(texts) <> "  (not yet: #{reason})"]
  defp unless_refused(texts, _reply), do: texts

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

  # All paths are below it, and lines are long enough.
  defp short(path), do: String.replace_prefix(path, "/local/domain/", ".../")
end
