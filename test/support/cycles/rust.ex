defmodule Tube.Test.Cycles.Rust do
  @moduledoc """
  Which modules of a Rust crate use which of their siblings.

  A sibling is a child of the same parent module; whatever is below it counts as the sibling.
  A module that uses what its own parent defines depends on no sibling. One that uses what its
  parent re-exports depends on the module that defines it. Code for tests (`#[cfg(test)]`) does not count.

  This reads `use` declarations and paths with `::`. It knows no types, so a method call is no
  dependency.
  """

  alias Tube.Test.Cycles.{RustCode, RustTokens}

  @doc "The graphs of the crate with this root file, by place, for each module with children."
  @spec graphs(Path.t()) :: [{String.t(), Tube.Test.Cycles.edges()}]
  def graphs(root) do
    modules = load(root)
    folder = Path.dirname(root)

    modules
    |> edges()
    |> Enum.group_by(fn {level, _from, _to, _text} -> level end)
    |> Enum.sort()
    |> Enum.map(fn {level, edges} ->
      {Path.join([folder | level]),
       Map.new(edges, fn {_, from, to, text} -> {{from, to}, text} end)}
    end)
  end

  ## The modules of a crate: by path (the root is []), what each declares and names

  @doc "Reads a crate from its root file on, through all `mod` declarations."
  @spec load(Path.t()) :: %{[String.t()] => map}
  def load(root), do: load(root, [], Path.dirname(root), %{})

  defp load(file, path, folder, modules) do
    file
    |> File.read!()
    |> RustTokens.read()
    |> RustCode.read()
    |> Enum.reduce(modules, fn {inline, module}, modules ->
      modules = Map.put(modules, path ++ inline, Map.put(module, :file, file))

      Enum.reduce(module.files, modules, fn name, modules ->
        below = Path.join([folder | inline])

        candidates =
          for end_of_path <- ["#{name}.rs", "#{name}/mod.rs"], do: Path.join(below, end_of_path)

        found = Enum.find(candidates, &File.exists?/1) || raise "#{file}: no file for mod #{name}"
        load(found, path ++ inline ++ [name], Path.join(below, name), modules)
      end)
    end)
  end

  ## What a name means

  # `{:module, path}`; `{:item, path}` for what that module defines; nil for other crates, and for
  # what is not known.
  defp resolve(modules, from, [first | rest], depth \\ 0) do
    cond do
      depth > 20 -> nil
      first in ["crate", "$crate"] -> walk(modules, [], rest, depth)
      first == "self" -> walk(modules, from, rest, depth)
      first == "super" -> walk(modules, parent(from), rest, depth)
      true -> step(modules, from, first, rest, depth)
    end
  end

  defp walk(_modules, path, [], _depth), do: {:module, path}
  defp walk(modules, path, ["super" | rest], depth), do: walk(modules, parent(path), rest, depth)
  defp walk(modules, path, ["self" | rest], depth), do: walk(modules, path, rest, depth)

  defp walk(modules, path, [name | rest], depth),
    do: step(modules, path, name, rest, depth) || {:item, path}

  # A name in a module: a child, an import, a definition, or what a glob import brings.
  defp step(modules, path, name, rest, depth) do
    module = modules[path]

    cond do
      Map.has_key?(modules, path ++ [name]) ->
        walk(modules, path ++ [name], rest, depth)

      target = module.imports[name] ->
        # `use a::b as b` within a itself would lead back here.
        with {:module, path} <-
               resolve(%{modules | path => hide(module, name)}, path, target, depth + 1),
             do: walk(modules, path, rest, depth + 1)

      name in module.defines ->
        {:item, path}

      true ->
        Enum.find_value(module.globs, fn target ->
          with {:module, glob} when glob != path <- resolve(modules, path, target, depth + 1),
               true <- depth < 20,
               do: known(modules, glob, name, rest, depth + 1)
        end)
    end
  end

  defp hide(module, name), do: %{module | imports: Map.delete(module.imports, name)}

  defp known(modules, path, name, rest, depth), do: step(modules, path, name, rest, depth)

  defp parent([]), do: []
  defp parent(path), do: Enum.drop(path, -1)

  ## Edges between siblings

  defp edges(modules) do
    for {from, module} <- modules,
        name <- names(module),
        {_kind, to} <- [resolve(modules, from, name)],
        {level, a, b} <- [siblings(from, to)],
        uniq: true,
        do: {level, a, b, "#{module.file} uses #{Enum.join(name, "::")}"}
  end

  # Single words matter only where a glob import may have brought them.
  defp names(%{globs: []} = module), do: Map.values(module.imports) ++ module.paths

  defp names(module),
    do:
      Map.values(module.imports) ++ module.paths ++ module.globs ++ Enum.map(module.words, &[&1])

  defp siblings(from, to), do: siblings(from, to, [])

  defp siblings([a | from], [a | to], level), do: siblings(from, to, [a | level])
  defp siblings([a | _], [b | _], level), do: {Enum.reverse(level), a, b}
  defp siblings(_from, _to, _level), do: nil
end
