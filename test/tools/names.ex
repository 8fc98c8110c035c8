defmodule Tube.Tools.Names do
  @moduledoc false
  # Looks up the names of files, modules, functions, types, variables and headings that a page uses
  # in the source tree. The documentation must not keep the name of what was renamed.

  alias Tube.Tools.Names.Source

  @folders "bench|bin|docs|examples|guides|lib|native|src|test|\\.ci"
  @extensions "erl|exs?|md|rs|service|sh"
  # A path may have {alternatives} and * in it.
  @word "(?:[\\w.*@+/-]|\\{[\\w,.*/-]+\\})"

  # Files of the reader's own program, in the guides.
  @readers "\\bmy_app\\b|^chat\\.erl$"

  @doc "The problems of a page: one text for each name that does not exist, sorted by line."
  @spec problems(Source.t(), Path.t(), String.t()) :: [String.t()]
  def problems(source, page, text) do
    # Addresses keep their length, so that lines can still be counted.
    text = Regex.replace(~r"https?://[^\s)>]+", text, &String.duplicate(" ", byte_size(&1)))

    found =
      paths(source, page, text) ++
        links(source, page, text) ++
        modules(source, text) ++
        erlang(source, text) ++
        tasks(source, text) ++ rust(source, text) ++ variables(source, text)

    for {line, what} <-
          found
          |> Enum.map(fn {at, what} -> {line(text, at), what} end)
          |> Enum.uniq()
          |> Enum.sort(),
        do: "#{page}:#{line}: #{what}"
  end

  defp line(text, at), do: length(:binary.matches(binary_part(text, 0, at), "\n")) + 1

  # All matches of a pattern: position, and the texts of its groups.
  defp scan(pattern, text) do
    for [{at, _length} | _] = match <- Regex.scan(pattern, text, return: :index) do
      {at,
       for(
         {from, length} <- match,
         do: if(from < 0, do: "", else: binary_part(text, from, length))
       )}
    end
  end

  ## Files and folders

  defp paths(source, page, text) do
    below = Regex.compile!("(?<![\\w./$<>{}*~-])(?:\\./)?((?:#{@folders})/#{@word}*)")
    named = Regex.compile!("(?<![\\w./$<>{}*~-])(#{@word}+\\.(?:#{@extensions}))(?![\\w/])")

    for pattern <- [below, named],
        {at, [_, word]} <- scan(pattern, text),
        not (word =~ Regex.compile!(@readers)),
        path <- word |> String.replace(~r"[.,]+$", "") |> alternatives(),
        path != "",
        not Source.path?(source, page, path),
        do: {at, "no file #{path}"}
  end

  @doc "A word with {alternatives}, as a list of words without."
  @spec alternatives(String.t()) :: [String.t()]
  def alternatives(word) do
    case Regex.run(~r/^(.*?)\{([^{}]*)\}(.*)$/, word) do
      nil ->
        [word]

      [_, before, choices, rest] ->
        for choice <- String.split(choices, ","),
            path <- alternatives(before <> choice <> rest),
            do: path
    end
  end

  ## Links, and the headings that they lead to

  defp links(source, page, text) do
    for {at, [_, target]} <- scan(~r/\]\(([^()\s]+)\)/, text),
        not (target =~ ~r/^[a-z]+:/),
        problem <- link(source, page, text, target),
        do: {at, problem}
  end

  defp link(source, page, text, target) do
    {path, anchor} =
      case String.split(target, "#", parts: 2) do
        [path] -> {path, nil}
        [path, anchor] -> {path, anchor}
      end

    file = if path == "", do: page, else: Source.relative(page, path)

    cond do
      path != "" and not Source.exists?(source, file) ->
        ["no file #{path}"]

      anchor == nil ->
        []

      anchor in headings(if(path == "", do: text, else: Source.read(source, file))) ->
        []

      true ->
        ["no heading #{target}"]
    end
  end

  @doc "The anchors of a page's headings, as GitHub and ExDoc make them."
  @spec headings(String.t()) :: [String.t()]
  def headings(text) do
    # A comment in a block of code is no heading.
    text = Regex.replace(~r/^```.*?^```/ms, text, "")

    slugs =
      for [_, title] <- Regex.scan(~r/^\#{1,6} +(.*)$/m, text) do
        title
        |> String.downcase()
        |> String.replace(~r/\]\([^)]*\)/, "")
        |> String.replace(~r/[^\p{L}\p{N} _-]/u, "")
        |> String.trim()
        |> String.replace(" ", "-")
      end

    for {slug, n} <- Enum.with_index(slugs) do
      case slugs |> Enum.take(n) |> Enum.count(&(&1 == slug)) do
        0 -> slug
        earlier -> "#{slug}-#{earlier}"
      end
    end
  end

  ## Modules and functions

  defp modules(source, text) do
    pattern =
      ~r"(?<![\w.:@/])(:tube(?=\.)|(?:Mix\.Tasks\.)?Tube(?:\.[A-Z]\w*)*)(?:\.([a-z_]\w*[?!]?)(?:/(\d+))?)?"

    for {at, [_, module | function]} <- scan(pattern, text),
        problem <- function(source, module, function),
        do: {at, problem}
  end

  # tube:open(...), tube:open/2
  defp erlang(source, text) do
    names = source |> Source.erlang_modules() |> Enum.map_join("|", &String.trim_leading(&1, ":"))
    pattern = Regex.compile!("(?<![\\w.:@/])(#{names}):([a-z_]\\w*)(?=[(/])(?:/(\\d+))?")

    for {at, [_, module | function]} <- scan(pattern, text),
        problem <- function(source, ":" <> module, function),
        do: {at, problem}
  end

  defp function(source, module, function) do
    case {Source.functions(source, module), function} do
      {nil, _} ->
        ["no module #{module}"]

      {functions, [name]} ->
        if List.keymember?(functions, name, 0), do: [], else: ["no function #{module}.#{name}"]

      {functions, [name, arity]} ->
        if {name, String.to_integer(arity)} in functions,
          do: [],
          else: ["no function #{module}.#{name}/#{arity}"]

      {_functions, []} ->
        []
    end
  end

  defp tasks(source, text) do
    for {at, [_, name]} <- scan(~r/\bmix (tube(?:\.[a-z]+)+)/, text),
        module =
          "Mix.Tasks." <> Enum.map_join(String.split(name, "."), ".", &String.capitalize/1),
        Source.functions(source, module) == nil,
        do: {at, "no task mix #{name}"}
  end

  ## Rust, and the environment

  # `Producer::put`, `tube_ring::Producer`: each part must be defined somewhere in the crates.
  defp rust(source, text) do
    for {at, [path]} <- scan(~r/(?<![\w:])(?:\w+::)+\w+/, text),
        # Elixir writes <<n::64>> so.
        path =~ ~r/^crate::|^tube|[A-Z]/,
        [first | _] = parts <- [String.split(path, "::")],
        first not in ~w(std core alloc),
        part <- parts,
        part not in ~w(crate self super),
        not Source.rust?(source, part),
        do: {at, "nothing is called #{part} in native (#{path})"}
  end

  defp variables(source, text) do
    for {at, [name]} <- scan(~r/\bTUBE_[A-Z0-9_]*[A-Z0-9]/, text),
        not Source.variable?(source, name),
        do: {at, "no variable #{name}"}
  end
end

defmodule Tube.Tools.Names.Source do
  @moduledoc false
  # The names that the source tree has.

  defstruct [:root, :files, :modules, :rust, :variables]
  @type t :: %__MODULE__{}

  # Build products, and folders that are not the project's.
  @ignored ~w(.git _build cover deps doc priv target tmp)
  # These use names that do not exist, on purpose.
  @made_up ~w(test/tools/names.ex test/tools/names_test.exs)

  @doc "Reads the tree below `root`."
  @spec new(Path.t()) :: t
  def new(root) do
    files = list(root, "")
    texts = for file <- files, text?(file), do: {file, File.read!(Path.join(root, file))}

    %__MODULE__{
      root: root,
      files: MapSet.new(files ++ Enum.flat_map(files, &folders/1)),
      modules: modules(texts),
      rust:
        words(
          texts,
          ~r"^native/[^/]+/src/",
          ~r/(?<=fn |struct |enum |trait |type |mod |const |static |union )\w+|^ +[A-Z]\w*/m
        ),
      variables: words(texts, ~r/(?<!\.md)$/, ~r/\bTUBE_[A-Z0-9_]*[A-Z0-9]/)
    }
    |> add_crates(texts)
  end

  defp list(root, folder) do
    for name <- root |> Path.join(folder) |> File.ls!(),
        name not in @ignored,
        path = Path.join(folder, name),
        file <- if(File.dir?(Path.join(root, path)), do: list(root, path), else: [path]),
        do: file
  end

  defp folders(file) do
    case Path.dirname(file) do
      "." -> []
      folder -> [folder | folders(folder)]
    end
  end

  defp text?(file), do: file not in @made_up and Path.extname(file) not in ~w(.beam .so .svg .png)

  defp words(texts, files, pattern) do
    for {file, text} <- texts,
        file =~ files,
        [word] <- Regex.scan(pattern, text),
        into: MapSet.new(),
        do: String.trim(word)
  end

  defp add_crates(source, texts) do
    names =
      for {file, text} <- texts,
          Path.basename(file) == "Cargo.toml",
          [_, name] <- Regex.scan(~r/^name = "([^"]+)"/m, text),
          do: String.replace(name, "-", "_")

    modules =
      for {file, _} <- texts, file =~ ~r"^native/[^/]+/src/", do: Path.basename(file, ".rs")

    %{source | rust: MapSet.union(source.rust, MapSet.new(names ++ modules))}
  end

  ## Files

  @doc "Whether the tree has this file or folder, named from its root; * matches anything in a name."
  @spec exists?(t, Path.t()) :: boolean
  def exists?(source, path) do
    path = String.trim_trailing(path, "/")

    if String.contains?(path, "*"),
      do: Enum.any?(source.files, &(&1 =~ glob(path, "^"))),
      else:
        path in source.files or (ignored?(path) and File.exists?(Path.join(source.root, path)))
  end

  @doc """
  Whether a word of a page names a file or folder: from the root, from the page's own folder, or by
  the end of its path, as `layout.rs` and `xen/grants.rs` do. Build products count as existing.
  """
  @spec path?(t, Path.t(), String.t()) :: boolean
  def path?(source, page, path) do
    path = String.trim_trailing(path, "/")

    exists?(source, path) or exists?(source, relative(page, path)) or ignored?(path) or
      (not (path =~ ~r"^(bench|bin|docs|examples|guides|lib|native|test)/") and
         Enum.any?(source.files, &(&1 =~ glob(path, "(^|/)"))))
  end

  defp ignored?(path), do: Enum.any?(Path.split(path), &(&1 in @ignored))

  defp glob(path, start) do
    path = path |> Regex.escape() |> String.replace(~r/(\\\*)+/, "[^/]*")
    Regex.compile!("#{start}#{path}$")
  end

  @doc "A path as a page at `page` means it, from the root of the tree."
  @spec relative(Path.t(), Path.t()) :: Path.t()
  def relative(page, path),
    do: page |> Path.dirname() |> Path.join(path) |> Path.expand("/") |> Path.relative_to("/")

  @doc "The text of a file."
  @spec read(t, Path.t()) :: String.t()
  def read(source, path), do: File.read!(Path.join(source.root, path))

  ## Modules

  defp modules(texts) do
    for {file, text} <- texts, found <- defined(Path.extname(file), text), into: %{}, do: found
  end

  defp defined(extension, text) when extension in [".ex", ".exs"] do
    {:ok, code} = Code.string_to_quoted(text)
    blocks(code, "")
  end

  defp defined(".erl", text) do
    [_, name] = Regex.run(~r/^-module\((\w+)\)/m, text)
    [{":" <> name, []}]
  end

  defp defined(_extension, _text), do: []

  # The modules in a piece of code, with what each defines for others: names and numbers of
  # arguments.
  defp blocks({:defmodule, _, [name, [{_do, body}]]}, outer) do
    name = module(name, outer)
    [{name, exports(body)} | blocks(body, name)]
  end

  defp blocks({_, _, arguments}, outer), do: blocks(arguments, outer)
  defp blocks({a, b}, outer), do: blocks(a, outer) ++ blocks(b, outer)
  defp blocks(list, outer) when is_list(list), do: Enum.flat_map(list, &blocks(&1, outer))
  defp blocks(_other, _outer), do: []

  defp module({:__aliases__, _, parts}, outer) do
    name = Enum.map_join(parts, ".", &to_string/1)
    if outer == "", do: name, else: outer <> "." <> name
  end

  defp module(name, _outer), do: inspect(name)

  defp exports({:__block__, _, lines}), do: Enum.flat_map(lines, &export/1)
  defp exports(line), do: export(line)

  defp export({kind, _, [head | _]}) when kind in [:def, :defmacro, :defdelegate, :defguard],
    do: head |> without_guard() |> arities()

  defp export({:@, _, [{kind, _, [spec]}]})
       when kind in [:callback, :macrocallback, :type, :opaque] do
    case without_guard(spec) do
      {:"::", _, [head, _]} -> arities(head)
      _other -> []
    end
  end

  defp export(_line), do: []

  defp without_guard({:when, _, [head, _guard]}), do: head
  defp without_guard(head), do: head

  defp arities({name, _, arguments}) when is_atom(name) do
    arguments = if is_list(arguments), do: arguments, else: []
    most = length(arguments)
    least = most - Enum.count(arguments, &match?({:\\, _, _}, &1))
    for arity <- least..most, do: {to_string(name), arity}
  end

  defp arities(_unquoted), do: []

  @doc """
  What a module of the project offers: functions, callbacks and types, as `{name, arity}`. Nil if
  there is no such module.
  """
  @spec functions(t, String.t()) :: [{String.t(), arity}] | nil
  def functions(source, module) do
    with functions when functions != nil <- source.modules[module] do
      functions ++ compiled(module)
    end
  end

  # Only the compiled module has the functions that a macro defines.
  defp compiled(":" <> name), do: name |> String.to_existing_atom() |> loaded()
  defp compiled(name), do: [name] |> Module.concat() |> loaded()

  defp loaded(module) do
    if Code.ensure_loaded?(module),
      do: for({name, arity} <- module.module_info(:exports), do: {to_string(name), arity}),
      else: []
  end

  @doc "Modules with a name in lower case."
  @spec erlang_modules(t) :: [String.t()]
  def erlang_modules(source), do: for(":" <> _ = name <- Map.keys(source.modules), do: name)

  @doc "Whether Rust code in native/ defines something of this name."
  @spec rust?(t, String.t()) :: boolean
  def rust?(source, name), do: name in source.rust

  @doc "Whether any code uses this variable of the environment."
  @spec variable?(t, String.t()) :: boolean
  def variable?(source, name), do: name in source.variables
end
