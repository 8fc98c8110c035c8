defmodule Tube.Test.Cycles.RustCode do
  @moduledoc false
  # One file of Rust, as far as names go: `{path within the file, module}` for the file itself,
  # whose path is [], and for each inline module.
  #
  #     files     names of `mod name;`
  #     imports   what `use` brings: local name => path
  #     globs     paths of `use path::*`
  #     paths     paths with ::, written anywhere else
  #     words     names of one part
  #     defines   items

  @empty %{files: [], imports: %{}, globs: [], paths: [], words: [], defines: []}
  @defining ~w(fn struct enum union trait type const static)
  @opening %{"{" => "}", "(" => ")", "[" => "]"}

  def read(tokens) do
    {[], modules} = code(tokens, [], %{[] => @empty})
    for {path, module} <- modules, do: {path, Map.update!(module, :words, &Enum.uniq/1)}
  end

  # Until the end, or the brace that closes a block.
  defp code([], _at, modules), do: {[], modules}
  defp code(["}" | rest], _at, modules), do: {rest, modules}

  defp code(["{" | rest], at, modules) do
    {rest, modules} = code(rest, at, modules)
    code(rest, at, modules)
  end

  defp code(["#", "!", "[" | rest], at, modules) do
    {attribute, rest} = group(rest, "]")
    # All of the file, or of the block.
    if test?(attribute),
      do: rest |> block() |> then(&{&1, modules}),
      else: code(rest, at, modules)
  end

  defp code(["#", "[" | rest], at, modules) do
    {attribute, rest} = group(rest, "]")
    code(if(test?(attribute), do: item(rest), else: rest), at, modules)
  end

  defp code(["mod", {:name, name}, ";" | rest], at, modules),
    do: code(rest, at, add(modules, at, :files, name))

  defp code(["mod", {:name, name}, "{" | rest], at, modules) do
    {rest, modules} = code(rest, at ++ [name], Map.put(modules, at ++ [name], @empty))
    code(rest, at, modules)
  end

  # A bound, as in `impl Iterator + use<'a>`.
  defp code(["use", "<" | rest], at, modules), do: code(rest, at, modules)

  defp code(["use" | rest], at, modules) do
    {tree, rest} = group(rest, ";")
    code(rest, at, tree |> imports([]) |> Enum.reduce(modules, &bring(&1, &2, at)))
  end

  defp code([{:name, word}, {:name, name} | rest], at, modules) when word in @defining,
    do: code(rest, at, add(modules, at, :defines, name))

  defp code([".", {:name, _method} | rest], at, modules), do: code(rest, at, modules)

  defp code([{:name, name} | rest], at, modules) do
    case path(rest, [name]) do
      {[name], rest} -> code(rest, at, add(modules, at, :words, name))
      {path, rest} -> code(rest, at, add(modules, at, :paths, path))
    end
  end

  defp code([_other | rest], at, modules), do: code(rest, at, modules)

  defp add(modules, at, key, value), do: update_in(modules[at][key], &[value | &1])

  defp path(["::", {:name, name} | rest], path), do: path(rest, [name | path])
  defp path(rest, path), do: {Enum.reverse(path), rest}

  ## use

  defp bring({:glob, path}, modules, at), do: add(modules, at, :globs, path)
  # `as _` and `self` alone bring no name that matters here.
  defp bring({name, path}, modules, at), do: put_in(modules[at].imports[name], path)

  # A tree, without its semicolon.
  defp imports([], _before), do: []
  defp imports(["::" | rest], before), do: imports(rest, before)
  defp imports([{:name, name}, "::" | rest], before), do: imports(rest, before ++ [name])
  defp imports(["*" | _], before), do: [{:glob, before}]

  defp imports(["{" | rest], before) do
    {inside, []} = group(rest, "}")
    for tree <- split(inside), found <- imports(tree, before), do: found
  end

  defp imports([{:name, "self"} | rest], before) when before != [], do: named(rest, before)
  defp imports([{:name, name} | rest], before), do: named(rest, before ++ [name])

  defp named([{:name, "as"}, {:name, "_"}], path), do: [{Enum.join(path, "::"), path}]
  defp named([{:name, "as"}, {:name, name}], path), do: [{name, path}]
  defp named([], path), do: [{List.last(path), path}]

  # At the commas that are in no braces.
  defp split(tokens), do: split(tokens, [], [])
  defp split([], [], trees), do: trees
  defp split([], tree, trees), do: [Enum.reverse(tree) | trees]
  defp split(["," | rest], tree, trees), do: split(rest, [], [Enum.reverse(tree) | trees])

  defp split(["{" | rest], tree, trees) do
    {inside, rest} = group(rest, "}")
    split(rest, Enum.reverse(["{" | inside] ++ ["}"]) ++ tree, trees)
  end

  defp split([token | rest], tree, trees), do: split(rest, [token | tree], trees)

  ## What is for tests only

  defp test?([{:name, "cfg"}, "(" | condition]), do: condition |> Enum.drop(-1) |> only_tests?()
  defp test?(_attribute), do: false

  defp only_tests?([{:name, "test"}]), do: true

  defp only_tests?([{:name, "all"}, "(" | conditions]),
    do: conditions |> Enum.drop(-1) |> split_parts() |> Enum.any?(&only_tests?/1)

  defp only_tests?(_condition), do: false

  defp split_parts(tokens), do: split_parts(tokens, [], [])
  defp split_parts([], part, parts), do: [Enum.reverse(part) | parts]

  defp split_parts(["," | rest], part, parts),
    do: split_parts(rest, [], [Enum.reverse(part) | parts])

  defp split_parts(["(" | rest], part, parts) do
    {inside, rest} = group(rest, ")")
    split_parts(rest, Enum.reverse(["(" | inside] ++ [")"]) ++ part, parts)
  end

  defp split_parts([token | rest], part, parts), do: split_parts(rest, [token | part], parts)

  # Past one item and its further attributes: to its semicolon, or to the end of its braces. A field
  # or an arm ends at a comma.
  defp item(["#", "[" | rest]) do
    {_attribute, rest} = group(rest, "]")
    item(rest)
  end

  defp item(["use" | rest]), do: rest |> group(";") |> elem(1)
  defp item([{:name, word} | _] = tokens) when word in @defining, do: body(tokens)

  defp item([word | _] = tokens) when word in ["mod", "impl", "pub", "unsafe", "extern"],
    do: body(tokens)

  defp item(tokens), do: field(tokens)

  defp body(["pub", "(" | rest]), do: rest |> group(")") |> elem(1) |> body()
  defp body(["pub", "use" | rest]), do: rest |> group(";") |> elem(1)
  defp body(["use" | rest]), do: rest |> group(";") |> elem(1)
  defp body([";" | rest]), do: rest
  defp body(["{" | rest]), do: rest |> group("}") |> elem(1)

  defp body([open | rest]) when is_map_key(@opening, open),
    do: rest |> group(@opening[open]) |> elem(1) |> body()

  defp body([_ | rest]), do: body(rest)
  defp body([]), do: []

  defp field([end_of_field | rest]) when end_of_field in [",", ";"], do: rest
  defp field(["}" | _] = tokens), do: tokens

  defp field([open | rest]) when is_map_key(@opening, open),
    do: rest |> group(@opening[open]) |> elem(1) |> field()

  defp field([_ | rest]), do: field(rest)
  defp field([]), do: []

  # Past the brace that closes the block that we are in, which may be the file.
  defp block([]), do: []
  defp block(["}" | rest]), do: rest
  defp block(["{" | rest]), do: rest |> group("}") |> elem(1) |> block()
  defp block([_ | rest]), do: block(rest)

  # All up to a closing token, whatever is nested in between, and the rest after it.
  defp group(tokens, closing), do: group(tokens, closing, [])
  defp group([closing | rest], closing, inside), do: {Enum.reverse(inside), rest}

  defp group([open | rest], closing, inside) when is_map_key(@opening, open) do
    {nested, rest} = group(rest, @opening[open])
    group(rest, closing, [@opening[open] | Enum.reverse(nested)] ++ [open | inside])
  end

  defp group([token | rest], closing, inside), do: group(rest, closing, [token | inside])
end
