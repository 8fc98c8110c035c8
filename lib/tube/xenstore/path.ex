defmodule Tube.Xenstore.Path do
  @moduledoc false
  # What a xenstore path may look like (docs/misc/xenstore.txt), and how two of them relate.
  # Checked before anything is sent: a NUL in a path would otherwise become a second argument.

  # XENSTORE_ABS_PATH_MAX and XENSTORE_REL_PATH_MAX.
  @max_absolute 3072
  @max_relative 2048

  @legal ~r{\A[A-Za-z0-9@_/-]+\z}

  @doc "Whether a node may be named so; a relative path means below the domain's own directory."
  @spec valid?(term()) :: boolean()
  def valid?("/"), do: true

  def valid?(path) when is_binary(path) do
    byte_size(path) <= max(path) and path =~ @legal and not String.contains?(path, "//") and
      not String.ends_with?(path, "/")
  end

  def valid?(_other), do: false

  @doc """
  Whether a watch may be set there: an absolute path, or a special one (`@releaseDomain`).

  A relative watch would report relative paths, which then look like somebody else's.
  """
  @spec watchable?(term()) :: boolean()
  def watchable?(<<first, _::binary>> = path) when first in [?/, ?@], do: valid?(path)
  def watchable?(_other), do: false

  @doc "Whether the two are equal or one is above the other."
  @spec related?(String.t(), String.t()) :: boolean()
  def related?(a, b), do: a == b or below?(a, b) or below?(b, a)

  @doc "What every path below this one begins with."
  @spec prefix(String.t()) :: String.t()
  def prefix("/"), do: "/"
  def prefix(path), do: path <> "/"

  @doc "The path itself and all that are above it, nearest first."
  @spec lineage(String.t()) :: [String.t()]
  def lineage("/"), do: ["/"]

  def lineage(path) do
    above =
      for {at, 1} <- path |> :binary.matches("/") |> Enum.reverse(),
          do: binary_part(path, 0, max(at, 1))

    [path | above]
  end

  defp below?(path, above), do: path != above and String.starts_with?(path, prefix(above))

  defp max("/" <> _), do: @max_absolute
  defp max(_relative), do: @max_relative
end
