defmodule Tube.Handler do
  @moduledoc """
  A service as a module of callbacks: each tube that is accepted becomes a supervised process that
  calls them.

      defmodule Echo do
        use Tube.Handler

        @impl true
        def handle_data(data, tube, state) do
          case Tube.send(tube, data) do
            :ok -> {:continue, state}
            {:error, reason} -> {:error, reason, state}
          end
        end
      end

      children = [{Tube.Handler.Supervisor, handler: Echo, service: "echo"}]
      Supervisor.start_link(children, strategy: :one_for_one)

  All callbacks are optional. A connection begins with `c:handle_connection/2`, and ends with exactly
  one of `c:handle_close/2`, `c:handle_error/3` and `c:handle_shutdown/2`; then its tube is closed, and
  what was sent is still delivered within the tube's `:linger`.

  ## The process

  It owns its tube and traps exits. A message that is not the tube's goes to `c:handle_info/3`, so a
  connection may subscribe, monitor, and be told things. Messages of the tube come one at a time, in
  order; how many may wait in the mailbox is the option `:active` of `Tube.Handler.Supervisor`, and
  beyond that the sender at the other end waits. A callback that takes long delays its own
  connection and no other.

  `Logger` metadata of the process: `:tube`, `:peer_domid`, `:service`.

  ## Return values

  `t:handler_result/0` is all that a callback with a result may return; anything else ends the
  connection by an error that says so. Of the callbacks that end a connection the result is ignored.

  ## Crashes

  An exception in a callback ends its connection: `c:handle_error/3` is called with the exception or the
  exit reason, the tube is closed, and the supervisor reports the crash. It is not started again:
  its tube is gone. Other connections go on.
  """

  @typedoc "What a connection keeps between callbacks; at first the option `:state` of the supervisor."
  @type state :: term

  @typedoc """
  What happens next:

    * `{:continue, state}` - goes on
    * `{:continue, state, timeout}` - goes on, and `c:handle_timeout/2` is called if nothing comes within so
      many milliseconds. It is for this one time
    * `{:close, state}` - closes the tube after `c:handle_close/2`
    * `{:error, reason, state}` - closes the tube after `c:handle_error/3`
  """
  @type handler_result ::
          {:continue, state}
          | {:continue, state, timeout}
          | {:close, state}
          | {:error, reason :: term, state}

  @doc "A tube was accepted. `Tube.peer/1` says whose it is."
  @callback handle_connection(Tube.t(), state) :: handler_result

  @doc "A message has come."
  @callback handle_data(data :: binary, Tube.t(), state) :: handler_result

  @doc "Nothing has come within the time that was asked for. By default this closes the tube."
  @callback handle_timeout(Tube.t(), state) :: handler_result

  @doc "A message that is not the tube's. By default it is logged and forgotten."
  @callback handle_info(message :: term, Tube.t(), state) :: handler_result

  @doc """
  The peer has closed or shut down its side and all that it sent was handled, or a callback has
  returned `{:close, state}`. If the peer only shut down its side, it can still be sent to.
  """
  @callback handle_close(Tube.t(), state) :: term

  @doc """
  The tube broke (`t:Tube.Error.reason/0`), a callback has returned `{:error, reason, state}`, or a
  callback has crashed.
  """
  @callback handle_error(reason :: term, Tube.t(), state) :: term

  @doc "The supervisor is being stopped. What had arrived by then was handled; the tube still sends."
  @callback handle_shutdown(Tube.t(), state) :: term

  @optional_callbacks handle_connection: 2,
                      handle_data: 3,
                      handle_timeout: 2,
                      handle_info: 3,
                      handle_close: 2,
                      handle_error: 3,
                      handle_shutdown: 2

  defmacro __using__(_options) do
    quote location: :keep do
      @behaviour Tube.Handler

      @impl true
      def handle_connection(_tube, state), do: {:continue, state}

      @impl true
      def handle_data(_data, _tube, state), do: {:continue, state}

      @impl true
      def handle_timeout(_tube, state), do: {:close, state}

      @impl true
      def handle_info(message, _tube, state) do
        require Logger
        Logger.warning("#{inspect(__MODULE__)} got an unexpected message: #{inspect(message)}")
        {:continue, state}
      end

      @impl true
      def handle_close(_tube, _state), do: :ok

      @impl true
      def handle_error(_reason, _tube, _state), do: :ok

      @impl true
      def handle_shutdown(_tube, _state), do: :ok

      defoverridable Tube.Handler
    end
  end
end
