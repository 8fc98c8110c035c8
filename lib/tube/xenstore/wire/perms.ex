defmodule Tube.Xenstore.Wire.Perms do
  @moduledoc false
  # Permission lists. The first permission names the owner, which may do everything; its letter is
  # the access of all domains that are not listed. Each further one is for the domain that it names.
  #
  #     [n: 5, r: 7]    domain 5 owns it, domain 7 may read it, others have no access

  @letters [n: "n", r: "r", w: "w", b: "b"]

  @type access :: :n | :r | :w | :b
  @type t :: [{access(), domid :: 0..0xFFFF}, ...]

  @doc "Encodes a list: each permission is a letter, a domid and a NUL."
  @spec format(term()) :: {:ok, iodata()} | {:error, :einval}
  def format([_ | _] = perms) do
    if Enum.all?(perms, &permission?/1),
      do:
        {:ok, for({access, domid} <- perms, do: [@letters[access], Integer.to_string(domid), 0])},
      else: {:error, :einval}
  end

  def format(_other), do: {:error, :einval}

  @doc "Parses the payload of a GET_PERMS reply."
  @spec parse(binary()) :: {:ok, t()} | {:error, :protocol}
  def parse(payload) do
    perms = payload |> String.split(<<0>>, trim: true) |> Enum.map(&permission/1)
    if perms == [] or :error in perms, do: {:error, :protocol}, else: {:ok, perms}
  end

  for {access, letter} <- @letters do
    defp permission(unquote(letter) <> domid),
      do: permission(unquote(access), Integer.parse(domid))
  end

  defp permission(_other), do: :error

  defp permission(access, {domid, ""}) when domid in 0..0xFFFF, do: {access, domid}
  defp permission(_access, _other), do: :error

  # Up to 0xFFFF, not only to the last real domid: Xen 4.22 allows DOMID_ANY here.
  defp permission?({access, domid}), do: Keyword.has_key?(@letters, access) and domid in 0..0xFFFF
  defp permission?(_other), do: false
end
