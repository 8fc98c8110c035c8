defmodule Tube.Bench.Dist.Cases do
  @moduledoc false
  # The cases of `bin/bench dist`: the kind of work, the carriers and the names of the results.
  #
  # A carrier is the setting `tube_dist` of both nodes, or `false` for TCP.

  defstruct [:kind, :size, :carriers, :baselines, :metrics]

  @type kind :: :send | :many | :ping | :call | :ping_under_bulk
  @type metric :: {name :: String.t(), unit :: String.t(), value :: atom, carrier :: String.t()}
  @type t :: %__MODULE__{
          kind: kind,
          size: non_neg_integer,
          carriers: [{String.t(), keyword | false}],
          baselines: [String.t()],
          metrics: [metric]
        }

  @tcp "inet_tcp"
  @carriers [
    {"tube", []},
    {"tube_nofrag", [fragments: false]},
    {"tube_polling", [poll: {:adaptive, 200}]},
    {@tcp, false}
  ]
  @kib64 65_536
  @mib 1_048_576

  @spec all() :: [t]
  def all do
    [
      new(:send, 64, [{"send_64B", "messages_per_s", :messages_per_s, "tube"}]),
      new(:send, 1024, [
        {"send_1KiB", "messages_per_s", :messages_per_s, "tube"},
        {"cpu_per_gb_1KiB", "cpu_s_per_gb", :cpu_s_per_gb, "tube"}
      ]),
      new(:many, 256, [{"many_50x50_256B", "messages_per_s", :messages_per_s, "tube"}]),
      new(:send, @kib64, [
        {"send_64KiB", "bytes_per_s", :bytes_per_s, "tube"},
        {"send_64KiB_nofrag", "bytes_per_s", :bytes_per_s, "tube_nofrag"}
      ]),
      new(:send, @mib, [
        {"send_1MiB", "bytes_per_s", :bytes_per_s, "tube"},
        {"send_1MiB_nofrag", "bytes_per_s", :bytes_per_s, "tube_nofrag"},
        {"cpu_per_gb_1MiB", "cpu_s_per_gb", :cpu_s_per_gb, "tube"}
      ]),
      new(:ping, 0, [
        {"ping_p50", "us", :p50_us, "tube"},
        {"ping_p99", "us", :p99_us, "tube"}
      ]),
      new(:call, 0, [
        {"call_p50", "us", :p50_us, "tube"},
        {"call_polling_p50", "us", :p50_us, "tube_polling"}
      ]),
      new(:ping_under_bulk, @mib, [{"ping_under_bulk_p50", "us", :p50_us, "tube"}])
    ]
  end

  defp new(kind, size, metrics) do
    %__MODULE__{
      kind: kind,
      size: size,
      carriers: @carriers,
      baselines: [@tcp],
      metrics: metrics
    }
  end
end
