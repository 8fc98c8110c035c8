defmodule Tube.Bench.Cases do
  @moduledoc false
  # The cases of `bin/bench tube`: the kind of work, the carriers and the names of the results. One
  # measurement can have several results: each of `metrics` compares one carrier with every
  # baseline.

  alias Tube.Bench.Carrier

  defstruct [:kind, :size, :carriers, :baselines, :metrics]

  @type kind :: :pull | :batch | :active | :many | :rtt | :opens
  @type metric :: {name :: String.t(), unit :: String.t(), value :: atom, carrier :: String.t()}
  @type t :: %__MODULE__{
          kind: kind,
          size: non_neg_integer,
          carriers: [{String.t(), module}],
          baselines: [String.t()],
          metrics: [metric]
        }

  @carriers [
    {"tube", Carrier.Tube},
    {"gen_tcp_loopback", Carrier.Loopback},
    {"gen_tcp_unix", Carrier.Unix}
  ]
  @both ["gen_tcp_loopback", "gen_tcp_unix"]
  # Only for cases without active mode, which it lacks.
  @socket {"socket_unix", Carrier.Socket}
  @kib64 65_536

  @spec all() :: [t]
  def all do
    [
      streamed(:pull, 64, [{"pull_64B", "messages_per_s", :messages_per_s, "tube"}]),
      streamed(:pull, 1024, [{"pull_1KiB", "messages_per_s", :messages_per_s, "tube"}]),
      batches(64, "batch_64B"),
      batches(1024, "batch_1KiB"),
      streamed(:pull, @kib64, [
        {"pull_64KiB", "bytes_per_s", :bytes_per_s, "tube"},
        {"cpu_per_gb_64KiB", "cpu_s_per_gb", :cpu_s_per_gb, "tube"}
      ]),
      streamed(:pull, 1_048_576, [{"pull_1MiB", "bytes_per_s", :bytes_per_s, "tube"}]),
      streamed(:active, 64, [{"active_64B", "messages_per_s", :messages_per_s, "tube"}]),
      streamed(:active, 1024, [{"active_1KiB", "messages_per_s", :messages_per_s, "tube"}]),
      streamed(:active, @kib64, [{"active_64KiB", "bytes_per_s", :bytes_per_s, "tube"}]),
      streamed(:many, 256, [{"many_50x1_256B", "messages_per_s", :messages_per_s, "tube"}]),
      %__MODULE__{
        kind: :rtt,
        size: 64,
        carriers:
          @carriers ++
            [@socket, {"polling", Carrier.Polling}, {"polling_active", Carrier.PollingActive}],
        baselines: @both ++ ["socket_unix"],
        metrics: [
          {"rtt_active_p50", "us", :p50_us, "tube"},
          {"rtt_active_p99", "us", :p99_us, "tube"},
          {"rtt_polling_p50", "us", :p50_us, "polling"},
          {"rtt_polling_active_p50", "us", :p50_us, "polling_active"}
        ]
      },
      %__MODULE__{
        kind: :opens,
        size: 0,
        carriers: @carriers,
        baselines: [hd(@both)],
        metrics: [{"open_close", "per_s", :messages_per_s, "tube"}]
      }
    ]
  end

  # Many messages in one call at both ends, as each carrier supports it.
  defp batches(size, name),
    do: %__MODULE__{
      kind: :batch,
      size: size,
      carriers: [
        {"tube", Carrier.Batches},
        {"gen_tcp_loopback", Carrier.FramedLoopback},
        {"gen_tcp_unix", Carrier.FramedUnix}
      ],
      baselines: @both,
      metrics: [{name, "messages_per_s", :messages_per_s, "tube"}]
    }

  defp streamed(kind, size, metrics) do
    {carriers, baselines} =
      if kind == :active,
        do: {@carriers, @both},
        else: {@carriers ++ [@socket], @both ++ ["socket_unix"]}

    %__MODULE__{
      kind: kind,
      size: size,
      carriers: carriers,
      baselines: baselines,
      metrics: metrics
    }
  end
end
