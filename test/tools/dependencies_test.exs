defmodule Tube.DependenciesTest do
  @moduledoc false
  # docs/dependencies.md must list the crates of the manifests, and no others.
  use ExUnit.Case, async: true

  @root Path.expand("../..", __DIR__)
  @native Path.join(@root, "native")
  # A crate must offer one of these.
  @allowed ["MIT", "Apache-2.0", "ISC"]
  # For a character table in a crate that runs at compile time only.
  @tables ["Unicode-3.0"]

  test "every crate that a manifest names has its line, and every line its crate" do
    page = File.read!(Path.join(@root, "docs/dependencies.md"))

    rows =
      Regex.scan(~r/^\| `([a-z0-9_-]+)` \| (?:MIT|Apache|ISC|GPL)/m, page, capture: :all_but_first)

    manifests = [@native | Path.wildcard(@native <> "/*")]

    named =
      for dir <- manifests, name <- named(dir), not String.starts_with?(name, "tube-"), do: name

    assert "rustler" in named

    assert Enum.sort(List.flatten(rows)) == Enum.sort(Enum.uniq(named))
  end

  test "every crate that a manifest names is used there" do
    for manifest <- Path.wildcard(@native <> "/*/Cargo.toml"),
        dir = Path.dirname(manifest),
        sources = dir |> Path.join("{src,tests,benches}/**/*.rs") |> Path.wildcard(),
        text = Enum.map_join(sources, &File.read!/1),
        name <- named(dir) do
      assert text =~ String.replace(name, "-", "_"),
             "#{manifest} names #{name}, which nothing uses"
    end
  end

  test "every crate in the library or the hub has a compatible licence" do
    {out, 0} =
      System.cmd("cargo", ~w(tree --locked --offline --workspace --edges normal,build
         --prefix none --format {p}|{l}),
        cd: @native,
        stderr_to_stdout: true
      )

    lines =
      for line <- String.split(out, "\n"),
          [crate, licence] <- [String.split(line, "|")],
          do: {crate, licence}

    assert length(lines) > 10

    for {crate, licence} <- lines do
      # Each part of an AND must hold; in a part one of the ORs is enough.
      for part <- licence |> String.trim_trailing(" (*)") |> String.split(" AND ") do
        choices = part |> String.replace(~r/[()]/, "") |> String.split(~r{ OR |/})
        assert Enum.any?(choices, &(&1 in @allowed or &1 in @tables)), "#{crate}: #{licence}"
      end
    end
  end

  # The names in the dependency tables of a manifest. Here each name starts a line.
  defp named(dir) do
    case File.read(Path.join(dir, "Cargo.toml")) do
      {:ok, manifest} ->
        for [_header | lines] <- tables(manifest),
            [_all, name] <-
              Enum.map(lines, &Regex.run(~r/^([a-z][a-z0-9_-]*)[ .=]/, &1))
              |> Enum.reject(&is_nil/1),
            do: name

      {:error, _no_manifest} ->
        []
    end
  end

  defp tables(manifest) do
    for table <- String.split(manifest, ~r/^\[/m),
        [header | _] = lines = String.split(table, "\n"),
        header =~ ~r/dependencies\]$/,
        do: lines
  end
end
