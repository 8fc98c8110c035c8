defmodule Tube.Xenstore.Transport do
  @moduledoc false
  # The byte stream below a client. There are three kinds, which look the same to the client: the
  # socket of a hub or of xenstored, the device of a Xen domain, and a test's own.
  #
  # The device, /dev/xen/xenbus, has four peculiarities (Linux,
  # drivers/xen/xenbus/xenbus_dev_frontend.c). All kinds respect the first three; the platform
  # handles the last.
  #
  #   * It drops whatever a write holds beyond the end of a message. So a call of `send/2` is one
  #     whole message, which an implementation may split but never join with another.
  #   * Its buffer of 4096 bytes holds header and payload, see `max_payload/1`.
  #   * It replies to WATCH and UNWATCH itself, with its own table of tokens, and leaves req_id and
  #     tx_id of a watch event unset: an event is recognized by its type, not by a req_id of 0.
  #   * It accepts a second request before the first has its reply, and then breaks. It sends its
  #     buffer, not a copy, and the next write may have filled that meanwhile (seen: a path
  #     overwritten by another one, on which the xenstored of Xen 4.17 aborts). And WATCH waits for
  #     its reply with that buffer locked, while the delivery of an earlier reply needs the lock: the
  #     whole domain then waits for xenstore for ever. So the platform's relay sends one request at a
  #     time.

  @type handle :: term()

  @doc "Opens the stream; the calling process gets its messages."
  @callback open(argument :: term()) :: {:ok, handle()} | {:error, term()}

  @doc "Sends one whole packet; `:busy` if it took none of it."
  @callback send(handle(), packet :: binary()) :: :ok | :busy | {:error, term()}

  @doc "Interprets a message to the process."
  @callback event(handle(), message :: term()) :: {:data, binary()} | {:closed, term()} | :other

  @doc "The maximum size of a request's payload in bytes."
  @callback max_payload(handle()) :: pos_integer()

  @callback close(handle()) :: :ok
end
