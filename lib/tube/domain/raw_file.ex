defmodule Tube.Domain.RawFile do
  @moduledoc false
  # File functions that do not use OTP's file server: distribution starts before it, when the
  # functions of `File` would call a process that does not exist yet.

  @type posix :: :file.posix() | :badarg

  @doc "As `File.stat/1`."
  @spec stat(Path.t()) :: {:ok, File.Stat.t()} | {:error, posix}
  def stat(path) do
    with {:ok, info} <- :file.read_file_info(path, [:raw]), do: {:ok, File.Stat.from_record(info)}
  end

  @doc "As `File.ls/1`."
  @spec ls(Path.t()) :: {:ok, [String.t()]} | {:error, posix}
  def ls(path) do
    with {:ok, names} <- :prim_file.list_dir(path), do: {:ok, Enum.map(names, &to_string/1)}
  end

  @doc "As `File.read/1`."
  @spec read(Path.t()) :: {:ok, binary} | {:error, posix}
  def read(path), do: :prim_file.read_file(path)

  @doc "As `Path.expand/1`, of an absolute path."
  @spec expand(Path.t()) :: Path.t()
  def expand(path) do
    path
    |> String.split("/", trim: true)
    |> Enum.reduce([], fn
      ".", names -> names
      "..", names -> Enum.drop(names, 1)
      name, names -> [name | names]
    end)
    |> Enum.reverse()
    |> then(&("/" <> Enum.join(&1, "/")))
  end
end
