defmodule Tube.Xenstore.Transport do
  @moduledoc false
  # The byte stream under a client. Three kinds exist and the client cannot tell them apart: the
  # socket of a hub or of xenstored, the device of a Xen domain, and a test's own.
  #
  # The device, /dev/xen/xenbus, is a stream with four peculiarities (Linux,
  # drivers/xen/xenbus/xenbus_dev_frontend.c); the first three are kept for all kinds, the last is the platform's to keep:
  #
  #   * What one write holds beyond the end of a message is thrown away. So a call of `send/2` is
  #     one whole message, and an implementation may cut it in pieces but never join two.
  #   * Its buffer of 4096 bytes has to hold header and payload. `max_payload/1` tells.
  #   * It answers WATCH and UNWATCH by itself, with a token table of its own, and leaves req_id
  #     and tx_id of a watch event unset: an event is known by its type, not by a req_id of 0.
  #   * It takes a second request before the first is answered, and then spoils things. What it sends
  #     is not a copy but its buffer, which the next write may have filled meanwhile (seen: a path with
  #     another one laid over it, which ends the xenstored of Xen 4.17 by an assertion). And WATCH waits
  #     for its answer with that buffer locked, which whoever brings the answer to an earlier request
  #     has to lock first: the whole domain then waits for xenstore for ever. So the platform's relay sends
  #     one at a time, and keeps the others.

  @type handle :: term()

  @doc "Opens the stream; the calling process gets its messages."
  @callback open(argument :: term()) :: {:ok, handle()} | {:error, term()}

  @doc "Sends one whole packet; `:busy` if nothing of it was taken."
  @callback send(handle(), packet :: binary()) :: :ok | :busy | {:error, term()}

  @doc "What a message to the process means for the stream."
  @callback event(handle(), message :: term()) :: {:data, binary()} | {:closed, term()} | :other

  @doc "The most bytes that the payload of a request may have."
  @callback max_payload(handle()) :: pos_integer()

  @callback close(handle()) :: :ok
end
