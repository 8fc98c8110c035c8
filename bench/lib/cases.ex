defmodule Tube.Bench.Cases do
  @moduledoc false
  # The cases of `bin/bench tube`: what each does, on which links, and what it is called.
  # One measurement may answer for several cases: they are told apart by `metrics`.

  alias Tube.Bench.Carrier

  defstruct [:kind, :size, :carriers, :metrics]

  @type kind :: :pull | :active | :many | :rtt | :opens
  @type metric :: {name :: String.t(), unit :: String.t(), value :: atom}
  @type t :: %__MODULE__{
          kind: kind,
          size: non_neg_integer,
          carriers: [{String.t(), module}],
          metrics: [metric]
        }

  @both [{"gen_tcp_loopback", Carrier.Loopback}, {"gen_tcp_unix", Carrier.Unix}]
  @kib64 65_536

  @spec all() :: [t]
  def all do
    [
      streamed(:pull, 64, [{"pull_64B", "messages_per_s", :messages_per_s}]),
      streamed(:pull, 1024, [{"pull_1KiB", "messages_per_s", :messages_per_s}]),
      streamed(:pull, @kib64, [
        {"pull_64KiB", "bytes_per_s", :bytes_per_s},
        {"cpu_per_gb_64KiB", "cpu_s_per_gb", :cpu_s_per_gb}
      ]),
      streamed(:pull, 1_048_576, [{"pull_1MiB", "bytes_per_s", :bytes_per_s}]),
      streamed(:active, 64, [{"active_64B", "messages_per_s", :messages_per_s}]),
      streamed(:active, 1024, [{"active_1KiB", "messages_per_s", :messages_per_s}]),
      streamed(:active, @kib64, [{"active_64KiB", "bytes_per_s", :bytes_per_s}]),
      streamed(:many, 256, [{"many_50x1_256B", "messages_per_s", :messages_per_s}]),
      %__MODULE__{
        kind: :rtt,
        size: 64,
        carriers: @both,
        metrics: [{"rtt_active_p50", "us", :p50_us}, {"rtt_active_p99", "us", :p99_us}]
      },
      %__MODULE__{
        kind: :opens,
        size: 0,
        carriers: [hd(@both)],
        metrics: [{"open_close", "per_s", :messages_per_s}]
      }
    ]
  end

  @spec names() :: [String.t()]
  def names, do: for(case <- all(), {name, _unit, _value} <- case.metrics, do: name)

  defp streamed(kind, size, metrics),
    do: %__MODULE__{kind: kind, size: size, carriers: @both, metrics: metrics}
end
