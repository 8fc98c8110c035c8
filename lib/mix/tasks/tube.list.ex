defmodule Mix.Tasks.Tube.List do
  @shortdoc "Lists the tubes of a VM"

  @moduledoc """
  Lists the connected tubes of a VM, a line each, with what has gone through them.

      mix tube.list --node app@host [--cookie SECRET]

  Without `--node` those of this VM: of use where the task runs in a VM that has tubes, such as
  `Mix.Task.rerun("tube.list")` in `iex -S mix`. A node that speaks over tubes itself is reached by one that
  does:

      ELIXIR_ERL_OPTIONS="-pa _build/dev/lib/tube/ebin -proto_dist tube -start_epmd false -sname mix@dom9" \\
        mix tube.list --node app@dom5

  What anybody can see from outside, without Erlang, `bin/tubes list` shows.
  """
  use Mix.Task

  @titles ~w(NOCK TID TIP SERVICE RING SENT BYTES RECEIVED BYTES FULL)

  @impl true
  def run(args) do
    {options, []} = Mix.Tube.parse!(args)
    rows = for tube <- Mix.Tube.tubes!(options), do: row(tube)
    Mix.Tube.table([@titles | rows], options)
  end

  defp row(%{native: %{tx: tx, rx: rx}} = tube) do
    {nock, tid, tip} = Mix.Tube.ends(tube)
    numbers = [tx.messages, tx.bytes, rx.messages, rx.bytes, tx.waits]

    [mine(nock, tube), "#{tid}", mine(tip, tube), Mix.Tube.service(tube.service), "#{tx.ring}"] ++
      Enum.map(numbers, &Integer.to_string/1)
  end

  # Which of the two this VM is.
  defp mine(domid, %{me: domid, peer: peer}) when domid != peer, do: "#{domid}*"
  defp mine(domid, _tube), do: "#{domid}"
end
