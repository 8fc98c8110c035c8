defmodule Tube.Handshake.Value do
  @moduledoc false
  # Parses the peer's values strictly: a value is exactly as this release writes it, or `:error`.
  # No atom is ever created from input.

  alias Tube.Handshake

  @refusals [:refused, :version, :busy, :timeout, :protocol, :enospc, :closed]

  @doc "A XenbusState."
  @spec state(binary) :: {:ok, 0..8} | :error
  def state(<<digit>>) when digit in ?0..?8, do: {:ok, digit - ?0}
  def state(_other), do: :error

  @doc "A grant reference or an event channel port: decimal, 32 bits, no leading zero."
  @spec u32(binary) :: {:ok, 0..0xFFFFFFFF} | :error
  def u32(text) when byte_size(text) in 1..10 do
    case Integer.parse(text) do
      {n, ""} when n in 0..0xFFFFFFFF ->
        if Integer.to_string(n) == text, do: {:ok, n}, else: :error

      _other ->
        :error
    end
  end

  def u32(_other), do: :error

  @doc "Is this a nonce?"
  @spec nonce?(term) :: boolean
  def nonce?(nonce), do: is_binary(nonce) and nonce =~ ~r/\A[0-9a-f]{16}\z/

  @doc "The nonce of the attempt after this one."
  @spec next(Tube.Paths.nonce()) :: Tube.Paths.nonce()
  def next(nonce) do
    <<n::64>> = Base.decode16!(nonce, case: :lower)
    Base.encode16(<<n + 1::64>>, case: :lower)
  end

  @doc "The text of an `error` node. A reason without a word of its own becomes `refused`."
  @spec refusal(Handshake.reason()) :: String.t()
  def refusal(reason) when reason in @refusals, do: Atom.to_string(reason)
  # It will not last, and the peer need not know more.
  def refusal(:suspended), do: "busy"
  def refusal(_other), do: "refused"

  @doc "Parses an `error` node."
  @spec refused(binary) :: Handshake.refusal()
  for word <- @refusals do
    def refused(unquote(Atom.to_string(word))), do: unquote(word)
  end

  def refused(_other), do: :refused
end
