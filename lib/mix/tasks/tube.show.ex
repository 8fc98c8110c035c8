defmodule Mix.Tasks.Tube.Show do
  @shortdoc "Shows the tubes of a VM in detail"

  @moduledoc """
  Shows the tubes of a VM in detail, with all counters of both directions.

      mix tube.show [DOMID [TID]] --node app@host [--cookie SECRET]

  `DOMID` is the peer's, `TID` the number of the tube. For `--node`, see `mix tube.list`.
  """
  use Mix.Task

  alias Tube.Label

  @impl true
  def run(args) do
    {options, rest} = Mix.Tube.parse!(args)

    wanted =
      case rest do
        [] -> fn _tube -> true end
        [peer] -> wanted(peer, nil)
        [peer, tid] -> wanted(peer, tid)
        _more -> Mix.raise("mix tube.show [DOMID [TID]]")
      end

    case Enum.filter(Mix.Tube.tubes!(options), wanted) do
      [] -> Mix.Tube.no_tubes(options)
      tubes -> Enum.each(tubes, &show/1)
    end
  end

  defp wanted(peer, tid) do
    peer = Mix.Tube.number!(peer, "domain")
    tid = tid && Mix.Tube.number!(tid, "tube")
    &(&1.peer == peer and tid in [nil, &1.tid])
  end

  defp show(%{native: native} = tube) do
    {nock, tid, tip} = Label.ends(tube)
    service = Mix.Tube.service(tube.service)

    Mix.shell().info(
      "#{nock} -> #{tip} tube #{tid}, service #{service}: #{tube.role}, #{inspect(tube.pid)}"
    )

    rows = [
      ["", "sent", "received"]
      | for({key, tx} <- Enum.sort(native.tx), do: line(key, tx, native.rx))
    ]

    Mix.Tube.table(rows)
    others = native |> Map.drop([:tx, :rx]) |> Enum.sort()

    Mix.shell().info(
      Enum.map_join(others, ", ", fn {key, value} -> "#{key}: #{inspect(value)}" end) <> "\n"
    )
  end

  defp line(key, tx, rx), do: ["  #{key}", inspect(tx), inspect(Map.fetch!(rx, key))]
end
