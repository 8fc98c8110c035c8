defmodule Tube.Xenstore.Perms do
  @moduledoc false
  # Permission lists. The first entry names the owner, who may always do everything; its letter
  # is what everybody who is not listed may do. Further entries are for the domains they name.
  #
  #     [n: 5, r: 7]    domain 5 owns it, domain 7 may read, nobody else may do anything

  @letters [n: "n", r: "r", w: "w", b: "b"]

  @type access :: :n | :r | :w | :b
  @type t :: [{access(), domid :: 0..0xFFFF}, ...]

  @doc "The list on the wire: each entry a letter and a domid, closed by a NUL."
  @spec format(term()) :: {:ok, iodata()} | {:error, :einval}
  def format([_ | _] = perms) do
    if Enum.all?(perms, &entry?/1),
      do:
        {:ok, for({access, domid} <- perms, do: [@letters[access], Integer.to_string(domid), 0])},
      else: {:error, :einval}
  end

  def format(_other), do: {:error, :einval}

  @doc "Reads the payload of a GET_PERMS reply."
  @spec parse(binary()) :: {:ok, t()} | {:error, :protocol}
  def parse(payload) do
    entries = payload |> String.split(<<0>>, trim: true) |> Enum.map(&entry/1)
    if entries == [] or :error in entries, do: {:error, :protocol}, else: {:ok, entries}
  end

  for {access, letter} <- @letters do
    defp entry(unquote(letter) <> domid), do: entry(unquote(access), Integer.parse(domid))
  end

  defp entry(_other), do: :error

  defp entry(access, {domid, ""}) when domid in 0..0xFFFF, do: {access, domid}
  defp entry(_access, _other), do: :error

  # Up to 0xFFFF and not only up to the last real domid: Xen 4.22 lets DOMID_ANY stand here.
  defp entry?({access, domid}), do: Keyword.has_key?(@letters, access) and domid in 0..0xFFFF
  defp entry?(_other), do: false
end
