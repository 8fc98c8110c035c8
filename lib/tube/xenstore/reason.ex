defmodule Tube.Xenstore.Reason do
  @moduledoc false
  # Error replies carry a name, not a number. Known names become atoms through this table;
  # whatever else a daemon may say comes through as text: atoms are never made from input, and
  # a new name in a later Xen must not take the client down.

  @names ~w(EINVAL EACCES EEXIST EISDIR ENOENT ENOMEM ENOSPC EIO ENOTEMPTY ENOSYS EROFS EBUSY
            EAGAIN EISCONN E2BIG EPERM)

  @type t ::
          unquote(
            @names
            |> Enum.map(&String.to_atom(String.downcase(&1)))
            |> Enum.reduce(&{:|, [], [&1, &2]})
          )
          | {:xenstore, binary()}

  @doc "The reason that the payload of an ERROR reply stands for."
  @spec parse(binary()) :: t()
  def parse(payload), do: payload |> String.trim_trailing(<<0>>) |> reason()

  for name <- @names do
    defp reason(unquote(name)), do: unquote(String.to_atom(String.downcase(name)))
  end

  # oxenstored's word for what C xenstored calls ENOSPC.
  defp reason("EQUOTA"), do: :enospc
  defp reason(other), do: {:xenstore, other}
end
