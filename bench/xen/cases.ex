defmodule Tube.Bench.Xen.Cases do
  @moduledoc false
  # The cases of `bin/bench xen`: cases of the other benches between two guests, compared with other
  # transports between guests.

  alias Tube.Bench.{Carrier, Cases, Dist}

  @baselines ["gen_tcp_netfront", "libxenvchan"]
  @carriers [
    {"tube", Carrier.Tube},
    {"gen_tcp_netfront", Carrier.Netfront},
    {"libxenvchan", Tube.Bench.Xen.Vchan}
  ]
  @tcp "inet_tcp_netfront"
  @kib64 65_536

  @spec all() :: [Cases.t() | Dist.Cases.t()]
  def all do
    [
      plain(:rtt, 64, [
        {"rtt_p50", "us", :p50_us, "tube"},
        {"rtt_p99", "us", :p99_us, "tube"}
      ]),
      plain(:pull, 64, [{"stream_64B", "bytes_per_s", :bytes_per_s, "tube"}]),
      plain(:pull, 1024, [{"stream_1KiB", "bytes_per_s", :bytes_per_s, "tube"}]),
      plain(:pull, @kib64, [{"stream_64KiB", "bytes_per_s", :bytes_per_s, "tube"}]),
      dist(:ping, 0, [{"dist_ping_p50", "us", :p50_us, "tube"}]),
      dist(:send, 64, [{"dist_send_64B", "messages_per_s", :messages_per_s, "tube"}]),
      dist(:send, @kib64, [
        {"dist_send_64KiB", "bytes_per_s", :bytes_per_s, "tube"},
        {"dist_send_64KiB_nofrag", "bytes_per_s", :bytes_per_s, "tube_nofrag"}
      ])
    ]
  end

  defp plain(kind, size, metrics),
    do: %Cases{
      kind: kind,
      size: size,
      carriers: @carriers,
      baselines: @baselines,
      metrics: metrics
    }

  defp dist(kind, size, metrics),
    do: %Dist.Cases{
      kind: kind,
      size: size,
      carriers: [{"tube", []}, {"tube_nofrag", [fragments: false]}, {@tcp, false}],
      baselines: [@tcp],
      metrics: metrics
    }
end
