defmodule Tube.Test.Guide do
  @moduledoc """
  Runs the code blocks of a guide as a reader would.

  A block of `elixir` or `erlang` whose first line is the comment `domain N` runs in the VM of that
  domain; others run in domain 1. Later blocks of a domain see the variables of earlier ones. Within
  a section (`##`) each domain runs its blocks one after another, and the domains run at the same
  time, so one may wait for another; the next section begins when all are done.

  A block that begins with `-module(` is compiled for every VM, with LING's parse transform, as
  described in guides/migrating-from-ling.md.
  """

  alias Tube.Test.VM

  @enforce_keys [:section, :line, :language, :domid, :code]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          section: non_neg_integer,
          line: pos_integer,
          language: String.t(),
          domid: pos_integer,
          code: String.t()
        }

  # Limit for all blocks of one domain in one section.
  @limit 30_000

  @doc "Returns all fenced blocks of a Markdown text."
  @spec blocks(String.t()) :: [t]
  def blocks(text) do
    {blocks, _section, nil} =
      text
      |> String.split("\n")
      |> Enum.with_index(1)
      |> Enum.reduce({[], 0, nil}, &line/2)

    Enum.reverse(blocks)
  end

  defp line({"## " <> _title, _n}, {blocks, section, nil}), do: {blocks, section + 1, nil}

  defp line({"```" <> language, n}, {blocks, section, nil}),
    do: {blocks, section, {language, n + 1, []}}

  defp line({"```", _n}, {blocks, section, {language, first, lines}}) do
    code = lines |> Enum.reverse() |> Enum.join("\n")

    block = %__MODULE__{
      section: section,
      line: first,
      language: language,
      domid: domid(code),
      code: code
    }

    {[block | blocks], section, nil}
  end

  defp line({text, _n}, {blocks, section, {language, first, lines}}),
    do: {blocks, section, {language, first, [text | lines]}}

  defp line(_prose, outside), do: outside

  defp domid(code) do
    case Regex.run(~r/\A(?:#|%+) domain (\d+)/, code) do
      [_all, digits] -> String.to_integer(digits)
      nil -> 1
    end
  end

  @doc "Runs the blocks of `file` in VMs with the run directory `run_dir`."
  @spec run!([t], Path.t(), Path.t()) :: :ok
  def run!(blocks, file, run_dir) do
    {modules, blocks} =
      blocks
      |> Enum.filter(&(&1.language in ["elixir", "erlang"]))
      |> Enum.split_with(&(&1.code =~ ~r/\A-module\(/))

    vms =
      for domid <- blocks |> Enum.map(& &1.domid) |> Enum.uniq(), into: %{} do
        vm = VM.start!(run_dir: run_dir, domid: domid, modules: [__MODULE__])
        for block <- modules, do: load(vm, block)
        {domid, vm}
      end

    for {_section, blocks} <- blocks |> Enum.group_by(& &1.section) |> Enum.sort() do
      blocks
      |> Enum.group_by(& &1.domid)
      |> Enum.map(fn {domid, blocks} ->
        VM.async(vms[domid], fn -> evaluate_all(blocks, file) end, timeout: @limit)
      end)
      |> Task.await_many(@limit + 5_000)
    end

    :ok
  end

  # Runs in the VM, in the process that keeps the variables of this domain's blocks.
  defp evaluate_all(blocks, file) do
    for block <- blocks do
      try do
        evaluate(block, file)
      catch
        kind, reason ->
          text = Exception.format_banner(kind, reason, __STACKTRACE__)
          raise "#{file}:#{block.line}, domain #{block.domid}: #{text}"
      end
    end

    :ok
  end

  defp evaluate(%{language: "elixir"} = block, file) do
    {binding, env} = Process.get(__MODULE__, {[], :elixir.env_for_eval([])})
    env = %{env | file: file, line: block.line}
    quoted = Code.string_to_quoted!(block.code, file: file, line: block.line)
    {_value, binding, env} = Code.eval_quoted_with_env(quoted, binding, env)
    Process.put(__MODULE__, {binding, env})
  end

  defp evaluate(%{language: "erlang"} = block, _file) do
    binding = Process.get({__MODULE__, :erlang}, [])
    {:ok, tokens, _end} = :erl_scan.string(to_charlist(block.code), block.line)
    {:ok, exprs} = :erl_parse.parse_exprs(tokens)
    {:value, _value, binding} = :erl_eval.exprs(exprs, binding)
    Process.put({__MODULE__, :erlang}, binding)
  end

  defp load(vm, block) do
    {:ok, tokens, _end} = block.code |> to_charlist() |> :erl_scan.string()

    {forms, []} =
      Enum.flat_map_reduce(tokens, [], fn
        {:dot, _} = dot, form -> {[Enum.reverse([dot | form])], []}
        token, form -> {[], [token | form]}
      end)

    forms = for form <- forms, do: form |> :erl_parse.parse_form() |> elem(1)
    {:ok, module, code} = :compile.forms(forms, [{:parse_transform, :tube}])
    {:module, ^module} = VM.call(vm, :code, :load_binary, [module, ~c"guide", code])
  end
end
