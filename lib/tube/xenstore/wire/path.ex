defmodule Tube.Xenstore.Wire.Path do
  @moduledoc false
  # The syntax of xenstore paths (docs/misc/xenstore.txt), and the relations of two of them. Paths
  # are checked before they are sent: a NUL in a path would become a second argument.

  # XENSTORE_ABS_PATH_MAX and XENSTORE_REL_PATH_MAX.
  @max_absolute 3072
  @max_relative 2048

  @legal ~r{\A[A-Za-z0-9@_/-]+\z}

  @doc "Is this a valid path? A relative path is below the domain's own directory."
  @spec valid?(term()) :: boolean()
  def valid?("/"), do: true

  def valid?(path) when is_binary(path) do
    byte_size(path) <= max(path) and path =~ @legal and not String.contains?(path, "//") and
      not String.ends_with?(path, "/")
  end

  def valid?(_other), do: false

  @doc """
  Can it be watched? An absolute path can, or a special one (`@releaseDomain`).

  A relative watch would report relative paths, which look like those of other subscriptions.
  """
  @spec watchable?(term()) :: boolean()
  def watchable?(<<first, _::binary>> = path) when first in [?/, ?@], do: valid?(path)
  def watchable?(_other), do: false

  @doc "Are the two equal, or is one above the other?"
  @spec related?(String.t(), String.t()) :: boolean()
  def related?(a, b), do: a == b or below?(a, b) or below?(b, a)

  @doc "The common prefix of all paths below this one."
  @spec prefix(String.t()) :: String.t()
  def prefix("/"), do: "/"
  def prefix(path), do: path <> "/"

  @doc "The path itself and its parents, nearest first."
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
