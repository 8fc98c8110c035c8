# The configuration of ExDoc, for bin/docs.
in_group = fn group -> &(&1[:group] == group) end

[
  main: "readme",
  formatters: ["html"],
  extras: [
    {"README.md", title: "Tube"},
    "guides/getting-started.md",
    "guides/delivery-and-back-pressure.md",
    "guides/security.md",
    "guides/distribution.md",
    "guides/xen.md",
    "guides/migrating-from-gen_tcp.md",
    "guides/migrating-from-ling.md",
    "docs/design.md",
    "docs/handshake.md",
    "docs/wire.md",
    "docs/performance.md",
    "docs/reliability.md",
    "docs/original.md",
    "docs/dependencies.md",
    {"bench/README.md", filename: "benchmarks", title: "Benchmarks"},
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE"
  ],
  groups_for_extras: [
    Guides: ~r"^guides/",
    "How it works": ~r"^(docs|bench)/",
    Project: ~r"^(CONTRIBUTING|CHANGELOG|LICENSE)"
  ],
  groups_for_modules: [
    Tubes: [Tube, Tube.Error],
    Services: [Tube.Handler, Tube.Handler.Supervisor],
    Observability: [Tube.Telemetry, Tube.Logger],
    "From LING": [:tube]
  ],
  # The pages on how it works name hidden modules.
  skip_code_autolink_to: ~w(Tube.Connection Tube.Connection.Ending Tube.Listener.Dispatcher Tube.Handshake Tube.Handshake.Directory.sweep/1),
  # This module is hidden, but it has no documentation chunk that says so.
  filter_modules: fn module, _metadata -> module != :tube_dist end,
  groups_for_docs: [
    "This domain": in_group.(:domain),
    "Opening and accepting": in_group.(:opening),
    "Sending and receiving": in_group.(:data),
    "Owner and options": in_group.(:owner),
    Closing: in_group.(:end),
    Introspection: in_group.(:introspection)
  ]
]
