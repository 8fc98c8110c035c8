defmodule Tube.Test.Loopback do
  @moduledoc """
  What nodes need to have connections over TCP beside those over tubes, on a machine that stays as it
  is: an epmd of their own, and names of hosts that only they know.

  The epmd ends when the process that has started it does.
  """

  @enforce_keys [:epmd, :env, :dir]
  defstruct @enforce_keys

  @type t :: %__MODULE__{epmd: port, env: [{String.t(), String.t()}], dir: Path.t()}

  @doc """
  Starts an epmd, and has `hosts`, such as `"dom5"`, mean this machine. `:env` of the result is for the
  nodes; a file of theirs lies in `dir`.
  """
  @spec start([String.t()], Path.t()) :: t
  def start(hosts, dir) do
    port = free_port()
    inetrc = Path.join(dir, "inetrc")

    lines =
      for term <- [
            {:lookup, [:file, :native]},
            {:host, {127, 0, 0, 1}, Enum.map(hosts, &to_charlist/1)}
          ],
          do: :io_lib.format(~c"~p.~n", [term])

    File.write!(inetrc, lines)

    # It pays no heed to its own standard input, so a shell does, which ends with ours.
    script = ~s("$0" -port #{port} -address 127.0.0.1 2>/dev/null & read -r _; kill $!)

    epmd =
      Port.open({:spawn_executable, "/bin/sh"}, [:binary, args: ["-c", script, executable()]])

    await(port, 500)

    %__MODULE__{
      epmd: epmd,
      env: [{"ERL_EPMD_PORT", "#{port}"}, {"ERL_INETRC", inetrc}],
      dir: dir
    }
  end

  @spec stop(t) :: :ok
  def stop(%__MODULE__{epmd: epmd}) do
    Port.close(epmd)
    :ok
  end

  # With a shell of its own epmd may have to be looked for beside the VM.
  defp executable do
    System.find_executable("epmd") ||
      Path.join([:code.root_dir(), "erts-#{:erlang.system_info(:version)}", "bin", "epmd"])
  end

  defp free_port do
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(socket)
    :ok = :gen_tcp.close(socket)
    port
  end

  # It tells nobody when it is there.
  defp await(port, attempts) do
    case :gen_tcp.connect({127, 0, 0, 1}, port, [:binary], 1_000) do
      {:ok, socket} ->
        :gen_tcp.close(socket)

      {:error, _not_yet} when attempts > 0 ->
        receive do
        after
          10 -> await(port, attempts - 1)
        end
    end
  end
end
