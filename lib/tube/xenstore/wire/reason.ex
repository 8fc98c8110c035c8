defmodule Tube.Xenstore.Wire.Reason do
  @moduledoc false
  # Error replies carry a name, not a number. This table turns known names into atoms. Others stay
  # text: atoms are never created from input, and a new name in a later Xen must not break the
  # client.

  @names ~w(EINVAL EACCES EEXIST EISDIR ENOENT ENOMEM ENOSPC EIO ENOTEMPTY ENOSYS EROFS EBUSY
            EAGAIN EISCONN E2BIG EPERM)

  @type t ::
          unquote(
            @names
            |> Enum.map(&String.to_atom(String.downcase(&1)))
            |> Enum.reduce(&{:|, [], [&1, &2]})
          )
          | {:xenstore, binary()}

  @doc "Parses the payload of an ERROR reply."
  @spec parse(binary()) :: t()
  def parse(payload), do: payload |> String.trim_trailing(<<0>>) |> reason()

  for name <- @names do
    defp reason(unquote(name)), do: unquote(String.to_atom(String.downcase(name)))
  end

  # oxenstored's name for the ENOSPC of C xenstored.
  defp reason("EQUOTA"), do: :enospc
  defp reason(other), do: {:xenstore, other}
end
