defmodule Mix.Tube do
  @moduledoc false
  # What the mix tasks share: arguments, the tubes of a VM, and tables.

  alias Tube.Stats.Snapshot

  @node [node: :string, cookie: :string]

  @doc "Parses options and arguments; `strict` are the task's own, beside `--node` and `--cookie`."
  @spec parse!([String.t()], keyword) :: {keyword, [String.t()]}
  def parse!(args, strict \\ []) do
    case OptionParser.parse(args, strict: strict ++ @node) do
      {options, rest, []} -> {options, rest}
      {_options, _rest, [{name, _value} | _]} -> Mix.raise("unknown option #{name}")
    end
  end

  @doc "Returns the tubes of the VM that `--node` names, by default of this one."
  @spec tubes!(keyword) :: [Snapshot.tube()]
  def tubes!(options) do
    case options[:node] do
      nil -> local()
      name -> remote!(String.to_atom(name), options[:cookie])
    end
  end

  # A fresh VM has no tubes. It does not become a domain to list them.
  defp local, do: if(Process.whereis(Tube.Supervisor), do: Snapshot.take(), else: [])

  defp remote!(node, cookie) do
    become_node!(node)
    if cookie, do: Node.set_cookie(node, String.to_atom(cookie))

    unless Node.connect(node) == true,
      do: Mix.raise("node #{node} cannot be reached, or has another cookie: --cookie")

    :erpc.call(node, Snapshot, :take, [], 10_000)
  end

  defp become_node!(node) do
    names = if Atom.to_string(node) =~ ".", do: :longnames, else: :shortnames

    unless Node.alive?() do
      case Node.start(:"tube-mix-#{System.pid()}", names) do
        {:ok, _pid} ->
          :ok

        {:error, reason} ->
          Mix.raise(
            "this VM cannot become a node (#{inspect(reason)}): start it with elixir --sname"
          )
      end
    end
  end

  @doc "Starts the library, and the applications of the project, if the task runs in one."
  @spec start() :: :ok
  def start do
    if Mix.Project.get(), do: Mix.Task.run("app.start")
    {:ok, _started} = Application.ensure_all_started(:tube)
    :ok
  end

  @doc "Prints a line that says that there are no tubes."
  @spec no_tubes(keyword) :: :ok
  def no_tubes(options) do
    if options[:node],
      do: Mix.shell().info("no tubes"),
      else: Mix.shell().info("no tubes in this VM; for another VM use --node NAME")
  end

  @doc "Prints rows in columns."
  @spec table([[String.t()]]) :: :ok
  def table(rows) do
    widths =
      rows
      |> Enum.zip_with(& &1)
      |> Enum.map(&(&1 |> Enum.map(fn c -> String.length(c) end) |> Enum.max()))

    for row <- rows do
      line =
        row |> Enum.zip(widths) |> Enum.map_join("  ", fn {c, w} -> String.pad_trailing(c, w) end)

      Mix.shell().info(String.trim_trailing(line))
    end

    :ok
  end

  @doc "Escapes a service for the terminal, because its name may come from a peer."
  @spec service(binary) :: String.t()
  def service(name), do: name |> inspect() |> String.trim("\"")

  @doc "Formats a time in microseconds."
  @spec time(microseconds :: number) :: String.t()
  def time(us) when us >= 10_000, do: "#{one_decimal(us / 1_000)} ms"
  def time(us), do: "#{one_decimal(us / 1)} us"

  # `to_string/1` may print 1.7e3.
  defp one_decimal(float), do: :erlang.float_to_binary(float, decimals: 1)

  @doc "Parses a whole number; `what` names it in the error."
  @spec number!(String.t(), String.t()) :: non_neg_integer
  def number!(text, what) do
    case Integer.parse(text) do
      {n, ""} when n >= 0 -> n
      _other -> Mix.raise("#{inspect(text)} is not the number of a #{what}")
    end
  end
end
