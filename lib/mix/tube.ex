defmodule Mix.Tube do
  @moduledoc false
  # What the tasks of tubes share: whose tubes are meant, and tables.

  alias Tube.Stats.Snapshot

  @node [node: :string, cookie: :string]

  @doc "Switches and arguments; `strict` are those of the task beyond `--node` and `--cookie`."
  @spec parse!([String.t()], keyword) :: {keyword, [String.t()]}
  def parse!(args, strict \\ []) do
    case OptionParser.parse(args, strict: strict ++ @node) do
      {options, rest, []} -> {options, rest}
      {_options, _rest, [{name, _value} | _]} -> Mix.raise("#{name} is no option of this task")
    end
  end

  @doc "The tubes of the VM that `--node` names, else of this one."
  @spec tubes!(keyword) :: [Snapshot.tube()]
  def tubes!(options) do
    case options[:node] do
      nil -> here()
      name -> there!(String.to_atom(name), options[:cookie])
    end
  end

  # A fresh VM has none, and is not made a domain by looking.
  defp here, do: if(Process.whereis(Tube.Supervisor), do: Snapshot.take(), else: [])

  defp there!(node, cookie) do
    alive!(node)
    if cookie, do: Node.set_cookie(node, String.to_atom(cookie))

    unless Node.connect(node) == true,
      do: Mix.raise("node #{node} cannot be reached, or has another cookie: --cookie")

    :erpc.call(node, Snapshot, :take, [], 10_000)
  end

  defp alive!(node) do
    names = if Atom.to_string(node) =~ ".", do: :longnames, else: :shortnames

    unless Node.alive?() do
      case Node.start(:"tube-mix-#{System.pid()}", names) do
        {:ok, _pid} ->
          :ok

        {:error, reason} ->
          Mix.raise(
            "this VM cannot become a node (#{inspect(reason)}): start it as one, elixir --sname"
          )
      end
    end
  end

  @doc "Starts the library, as the project that the task runs in does, if there is one."
  @spec start() :: :ok
  def start do
    if Mix.Project.get(), do: Mix.Task.run("app.start")
    {:ok, _started} = Application.ensure_all_started(:tube)
    :ok
  end

  @doc "Says what there is, or why there may be nothing."
  @spec table([[String.t()]], keyword) :: :ok
  def table([_titles], options) do
    if options[:node],
      do: Mix.shell().info("no tubes"),
      else: Mix.shell().info("no tubes in this VM; those of another: --node NAME")
  end

  def table(rows, _options) do
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

  @doc "A service as it may be shown: it is a peer's word."
  @spec service(binary) :: String.t()
  def service(name), do: name |> inspect() |> String.trim("\"")

  @doc "Nock, number and tip of a tube, whichever end this is."
  @spec ends(Snapshot.tube()) :: {Tube.domid(), non_neg_integer, Tube.domid()}
  def ends(%{role: :nock} = tube), do: {tube.me, tube.tid, tube.peer}
  def ends(%{role: :tip} = tube), do: {tube.peer, tube.tid, tube.me}

  @doc "A time for people."
  @spec time(microseconds :: number) :: String.t()
  def time(us) when us >= 10_000, do: "#{one_decimal(us / 1_000)} ms"
  def time(us), do: "#{one_decimal(us / 1)} us"

  # Not as `to_string/1` has it: 1.7e3.
  defp one_decimal(float), do: :erlang.float_to_binary(float, decimals: 1)

  @doc "A whole number from an argument."
  @spec number!(String.t(), String.t()) :: non_neg_integer
  def number!(text, what) do
    case Integer.parse(text) do
      {n, ""} when n >= 0 -> n
      _other -> Mix.raise("#{inspect(text)} is not the number of a #{what}")
    end
  end
end
