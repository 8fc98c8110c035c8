defmodule Tube.Test.Eventually do
  @moduledoc """
  Polls conditions outside of every VM that report no change, such as the process table or a
  descriptor count. Where a message, a monitor or a watch reports the change, await that.
  """

  alias Tube.Test.Lab

  @step 10

  @doc """
  Returns once `condition` holds; raises when it does not within `timeout` milliseconds, of which the
  lab has more (`Tube.Test.Lab.timeout/1`).
  """
  @spec true!((() -> as_boolean(term)), timeout) :: :ok
  def true!(condition, timeout \\ 5_000) when is_function(condition, 0) do
    timeout = Lab.timeout(timeout)
    check(condition, System.monotonic_time(:millisecond) + timeout, timeout)
  end

  defp check(condition, deadline, timeout) do
    cond do
      condition.() ->
        :ok

      System.monotonic_time(:millisecond) >= deadline ->
        raise ExUnit.AssertionError, message: "did not come true within #{timeout} ms"

      true ->
        # An empty receive is a pause that takes no message out of the caller's mailbox.
        receive do
        after
          @step -> check(condition, deadline, timeout)
        end
    end
  end
end
