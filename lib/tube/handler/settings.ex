defmodule Tube.Handler.Settings do
  @moduledoc false
  # The checked options of a `Tube.Handler.Supervisor`, which all its processes get.

  @own [:handler, :state, :active, :max_connections, :shutdown, :name]
  @max_ms 86_400_000

  defstruct [:handler, :state, :active, :max_connections, :shutdown, :listen, :callbacks]

  @type t :: %__MODULE__{
          handler: module,
          state: term,
          active: :once | pos_integer | true,
          max_connections: pos_integer | :infinity,
          shutdown: non_neg_integer,
          listen: keyword,
          callbacks: %{atom => true}
        }

  @doc "Checks the options of `Tube.Handler.Supervisor`. Raises `ArgumentError`."
  @spec validate!(term) :: t
  def validate!(options) do
    unless Keyword.keyword?(options) do
      raise ArgumentError, "invalid options #{inspect(options)}: allowed is a keyword list"
    end

    {own, listen} = Keyword.split(options, @own)
    listen = Keyword.put(listen, :active, false)

    if listen[:mode] == :port do
      raise ArgumentError,
            "invalid value :port for option :mode: allowed is :tube"
    end

    Tube.Options.validate!(listen, :listen)
    handler = handler!(own)

    %__MODULE__{
      handler: handler,
      state: own[:state],
      active: get!(own, :active, 32, &active?/1, "true, :once, or an integer from 1 to 32767"),
      max_connections:
        get!(own, :max_connections, :infinity, &count?/1, "a positive integer, or :infinity"),
      shutdown:
        get!(own, :shutdown, 15_000, &ms?/1, "an integer from 0 to #{@max_ms} (milliseconds)"),
      listen: listen,
      callbacks: callbacks!(handler)
    }
  end

  defp handler!(own) do
    case Keyword.fetch(own, :handler) do
      {:ok, handler} when is_atom(handler) and handler != nil ->
        handler

      {:ok, other} ->
        raise ArgumentError,
              "invalid value #{inspect(other)} for option :handler: allowed is a module"

      :error ->
        raise ArgumentError,
              "the option :handler is missing: a module with callbacks of Tube.Handler"
    end
  end

  # Checked once, not for each message.
  defp callbacks!(handler) do
    with {:error, reason} <- Code.ensure_loaded(handler) do
      raise ArgumentError,
            "invalid value #{inspect(handler)} for option :handler: there is no such module " <>
              "(#{reason})"
    end

    exported =
      for {name, arity} <- Tube.Handler.behaviour_info(:callbacks),
          function_exported?(handler, name, arity),
          do: {name, true}

    case exported do
      [] ->
        raise ArgumentError,
              "invalid value #{inspect(handler)} for option :handler: it has no callback of " <>
                "Tube.Handler"

      callbacks ->
        Map.new(callbacks)
    end
  end

  defp get!(own, key, default, valid?, allowed) do
    value = Keyword.get(own, key, default)

    if valid?.(value) do
      value
    else
      raise ArgumentError,
            "invalid value #{inspect(value)} for option #{inspect(key)}: allowed is #{allowed}"
    end
  end

  defp active?(value), do: value in [true, :once] or (is_integer(value) and value in 1..32_767)
  defp count?(value), do: value == :infinity or (is_integer(value) and value > 0)
  defp ms?(value), do: is_integer(value) and value in 0..@max_ms
end
