defmodule Tube.Test.Cycles do
  @moduledoc """
  Cycles among the source files of `lib/` and among the modules of each Rust crate: the gate `cycles`
  of `bin/test`.

  A cycle here is a strongly connected component: a set of nodes each of which reaches all others. It
  counts once, however many ways around it has. `test/support/cycles.exs` lists the components that
  are left. One that is not on the list fails the gate; so does a listed one that is gone, which keeps
  the list true.
  """

  alias Tube.Test.Cycles.Rust

  @typedoc "Dependencies: `{from, to}`, each with a text that says where it comes from."
  @type edges :: %{{node :: String.t(), node :: String.t()} => String.t()}
  @type component :: {place :: String.t(), nodes :: [String.t()]}

  @list "test/support/cycles.exs"

  @doc "What the gate runs. Raises if the components are not those of the list."
  @spec main() :: :ok
  def main do
    {left, _binding} = Code.eval_file(@list)
    graphs = all()

    for {place, edges} <- graphs,
        found = components(edges),
        do: IO.puts("#{place}: #{nodes(edges)} nodes, cycles: #{length(found)}")

    case compare(graphs, left) do
      [] -> IO.puts("cycles left: #{length(left)}")
      problems -> Mix.raise(Enum.join(problems, "\n\n"))
    end
  end

  defp nodes(edges),
    do: edges |> Map.keys() |> Enum.flat_map(&Tuple.to_list/1) |> Enum.uniq() |> length()

  @doc "The graphs of the project, by place: `lib`, and each Rust module that has submodules."
  @spec all() :: [{String.t(), edges}]
  def all do
    {tree, 0} = System.cmd("mix", ~w(xref graph --format plain))
    crates = "native/*/src/lib.rs" |> Path.wildcard() |> Enum.flat_map(&Rust.graphs/1)
    [{"lib", xref(tree, "lib/")} | crates]
  end

  @doc "The graph in the output of `mix xref graph --format plain`: files below `prefix`, all edges."
  @spec xref(String.t(), String.t()) :: edges
  def xref(tree, prefix) do
    tree
    |> String.split("\n", trim: true)
    |> Enum.reduce({nil, %{}}, fn line, {from, edges} ->
      case Regex.run(~r/^([|`]-- )?(\S+)( \(.*\))?$/, line) do
        [_, "", file | _] ->
          {file, edges}

        [_, _branch, to | label] ->
          {from, Map.put(edges, {from, to}, "#{from} uses #{to}#{label}")}

        nil ->
          {from, edges}
      end
    end)
    |> elem(1)
    |> Map.filter(fn {{from, to}, _} ->
      String.starts_with?(from, prefix) and String.starts_with?(to, prefix)
    end)
  end

  @doc "The strongly connected components of more than one node, each sorted, in order."
  @spec components(edges) :: [[String.t()]]
  def components(edges) do
    graph = :digraph.new()

    for {{from, to}, _} <- edges do
      for node <- [from, to], do: :digraph.add_vertex(graph, node)
      :digraph.add_edge(graph, from, to)
    end

    found =
      for [_, _ | _] = nodes <- :digraph_utils.strong_components(graph), do: Enum.sort(nodes)

    :digraph.delete(graph)
    Enum.sort(found)
  end

  @doc """
  What differs: a text for each component that is not on the list, with its edges, and one for each
  listed component that is gone.
  """
  @spec compare([{String.t(), edges}], [{String.t(), [String.t()], String.t()}]) :: [String.t()]
  def compare(graphs, left) do
    left = for {place, nodes, _reason} <- left, do: {place, Enum.sort(nodes)}

    found = for {place, edges} <- graphs, nodes <- components(edges), do: {{place, nodes}, edges}

    new =
      for {{_place, nodes} = component, edges} <- found, component not in left do
        inside = for {{from, to}, text} <- edges, from in nodes, to in nodes, do: "  #{text}"

        "a cycle that is not in #{@list}:\n#{entry(component)}\n" <>
          Enum.join(Enum.sort(inside), "\n")
      end

    gone =
      for component <- left, not List.keymember?(found, component, 0) do
        "a cycle that is gone; remove it from #{@list}:\n#{entry(component)}"
      end

    new ++ gone
  end

  defp entry({place, nodes}), do: ~s|{"#{place}", ~w(#{Enum.join(nodes, " ")}), "..."}|
end
