defmodule Tube.Test.Cycles.RustTokens do
  @moduledoc false
  # The tokens of Rust code that names are made of. Comments, literals and lifetimes are left out;
  # names are `{:name, text}`, a few keywords and all punctuation are strings.

  @keywords ~w(mod use pub impl unsafe extern)

  def read(text), do: read(text, [])

  defp read("", tokens), do: Enum.reverse(tokens)
  defp read("//" <> rest, tokens), do: rest |> after_line() |> read(tokens)
  defp read("/*" <> rest, tokens), do: rest |> after_comment(1) |> read(tokens)
  defp read("::" <> rest, tokens), do: read(rest, ["::" | tokens])
  defp read("\"" <> rest, tokens), do: rest |> after_string() |> read(tokens)

  # A character; else it is a lifetime.
  defp read("'\\" <> <<_escaped, rest::binary>>, tokens) do
    [_inside, rest] = String.split(rest, "'", parts: 2)
    read(rest, tokens)
  end

  defp read("'" <> rest, tokens) do
    case rest do
      <<_::utf8, "'", rest::binary>> -> read(rest, tokens)
      _lifetime -> rest |> String.replace(~r/^\w+/, "") |> read(tokens)
    end
  end

  defp read(<<c, rest::binary>>, tokens) when c in [?\s, ?\t, ?\r, ?\n], do: read(rest, tokens)

  defp read(<<c, _::binary>> = text, tokens) when c in ?0..?9,
    do: text |> String.replace(~r/^\w+/, "") |> read(tokens)

  defp read(<<c, rest::binary>> = text, tokens) when c in ?a..?z or c in ?A..?Z or c == ?_ do
    [word] = Regex.run(~r/^\w+/, text)
    after_word = binary_part(text, byte_size(word), byte_size(text) - byte_size(word))

    cond do
      word in ["b", "c"] and match?("\"" <> _, after_word) ->
        read(after_word, tokens)

      word == "b" and match?("'" <> _, after_word) ->
        read(after_word, tokens)

      word in ["r", "br", "cr"] and after_word =~ ~r/^#*"/ ->
        after_word |> after_raw() |> read(tokens)

      word == "r" and match?("#" <> _, rest) ->
        rest |> binary_part(1, byte_size(rest) - 1) |> read(tokens)

      word in @keywords ->
        read(after_word, [word | tokens])

      true ->
        read(after_word, [{:name, word} | tokens])
    end
  end

  defp read(<<c::utf8, rest::binary>>, tokens), do: read(rest, [<<c::utf8>> | tokens])

  defp after_line(text) do
    case String.split(text, "\n", parts: 2) do
      [_, rest] -> rest
      [_] -> ""
    end
  end

  defp after_comment(text, 0), do: text
  defp after_comment("/*" <> rest, depth), do: after_comment(rest, depth + 1)
  defp after_comment("*/" <> rest, depth), do: after_comment(rest, depth - 1)
  defp after_comment(<<_, rest::binary>>, depth), do: after_comment(rest, depth)

  defp after_string("\\" <> <<_, rest::binary>>), do: after_string(rest)
  defp after_string("\"" <> rest), do: rest
  defp after_string(<<_, rest::binary>>), do: after_string(rest)

  defp after_raw(text) do
    [hashes] = Regex.run(~r/^#*/, text)
    rest = binary_part(text, byte_size(hashes) + 1, byte_size(text) - byte_size(hashes) - 1)
    [_inside, rest] = String.split(rest, "\"" <> hashes, parts: 2)
    rest
  end
end
