defmodule Mix.Tasks.Tube.List do
  @shortdoc "Lists the tubes of a VM"

  @moduledoc """
  Lists the connected tubes of a VM, one per line, with their traffic.

      mix tube.list --node app@host [--cookie SECRET]

  By default the task lists the tubes of its own VM, for example with `Mix.Task.rerun("tube.list")`
  in `iex -S mix`. To reach a node whose distribution uses tubes, run the task in such a node:

      ELIXIR_ERL_OPTIONS="-pa _build/dev/lib/tube/ebin -proto_dist tube -start_epmd false -sname mix@dom9" \\
        mix tube.list --node app@dom5

  `bin/tubes list` shows tubes from outside, without Erlang.
  """
  use Mix.Task

  alias Tube.Label

  @titles ~w(NOCK TID TIP SERVICE RING SENT BYTES RECEIVED BYTES FULL)

  @impl true
  def run(args) do
    {options, []} = Mix.Tube.parse!(args)

    case Mix.Tube.tubes!(options) do
      [] -> Mix.Tube.no_tubes(options)
      tubes -> Mix.Tube.table([@titles | Enum.map(tubes, &row/1)])
    end
  end

  defp row(%{native: %{tx: tx, rx: rx}} = tube) do
    {nock, tid, tip} = Label.ends(tube)
    numbers = [tx.messages, tx.bytes, rx.messages, rx.bytes, tx.waits]

    [mark(nock, tube), "#{tid}", mark(tip, tube), Mix.Tube.service(tube.service), "#{tx.ring}"] ++
      Enum.map(numbers, &Integer.to_string/1)
  end

  # Marks this VM's domain.
  defp mark(domid, %{me: domid, peer: peer}) when domid != peer, do: "#{domid}*"
  defp mark(domid, _tube), do: "#{domid}"
end
