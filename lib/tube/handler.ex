defmodule Tube.Handler do
  @moduledoc """
  A service as a callback module: each accepted tube gets a supervised process that calls it.

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

  All callbacks are optional. A connection begins with `c:handle_connection/2`, and ends with
  exactly one of `c:handle_close/2`, `c:handle_error/3` and `c:handle_shutdown/2`. Then its tube is
  closed; messages sent before are still delivered within the tube's `:linger`.

  ## The process

  The process owns its tube and traps exits. Messages that are not from the tube go to
  `c:handle_info/3`, so a connection may subscribe to things and monitor processes. Messages from
  the tube come one at a time, in order. The option `:active` of `Tube.Handler.Supervisor` limits
  how many may wait in the mailbox; beyond that the sender at the other end waits. A slow callback
  delays only its own connection.

  `Logger` metadata of the process: `:tube`, `:peer_domid`, `:service`.

  ## Return values

  Callbacks must return a `t:handler_result/0`; anything else ends the connection with an error that
  names the callback. The results of the callbacks that end a connection are ignored.

  ## Crashes

  An exception in a callback ends its connection: `c:handle_error/3` is called with the exception or
  the exit reason, the tube is closed, and the supervisor reports the crash. The process is not
  restarted, because its tube is gone. Other connections continue.
  """

  @typedoc "The state of a connection; initially the option `:state` of the supervisor."
  @type state :: term

  @typedoc """
  What happens next:

    * `{:continue, state}` - the connection continues
    * `{:continue, state, timeout}` - the connection continues, and `c:handle_timeout/2` is called
      if nothing comes within `timeout` milliseconds. The next callback cancels this limit
    * `{:close, state}` - closes the tube after `c:handle_close/2`
    * `{:error, reason, state}` - closes the tube after `c:handle_error/3`
  """
  @type handler_result ::
          {:continue, state}
          | {:continue, state, timeout}
          | {:close, state}
          | {:error, reason :: term, state}

  @doc "A tube was accepted. Use `Tube.peer/1` to see from whom."
  @callback handle_connection(Tube.t(), state) :: handler_result

  @doc "A message arrived."
  @callback handle_data(data :: binary, Tube.t(), state) :: handler_result

  @doc "Nothing came within the `timeout` of the last result. By default this closes the tube."
  @callback handle_timeout(Tube.t(), state) :: handler_result

  @doc "A message that is not from the tube. By default it is logged and ignored."
  @callback handle_info(message :: term, Tube.t(), state) :: handler_result

  @doc """
  The peer has closed or shut down its side and all its messages were handled, or a callback has
  returned `{:close, state}`. If the peer only shut down its side, you can still send to it.
  """
  @callback handle_close(Tube.t(), state) :: term

  @doc """
  The tube failed (`t:Tube.Error.reason/0`), a callback has returned `{:error, reason, state}`, or a
  callback has crashed.
  """
  @callback handle_error(reason :: term, Tube.t(), state) :: term

  @doc "The supervisor is stopping. All messages that arrived were handled; you can still send."
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
