defmodule Tube.Test.Loopback do
  @moduledoc """
  A private epmd and private host names, for nodes with connections over TCP beside those over
  tubes.

  The epmd ends with the process that started it.
  """

  @enforce_keys [:epmd, :env, :dir]
  defstruct @enforce_keys

  @type t :: %__MODULE__{epmd: port, env: [{String.t(), String.t()}], dir: Path.t()}

  @doc """
  Starts an epmd, and makes `hosts`, such as `"dom5"`, names of this machine. `:env` of the result
  is for the nodes, which read a file in `dir`.
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

    # epmd ignores end of file on its standard input, so a shell waits for that and kills it.
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

  # If epmd is not on the path, it is in the VM's own directory.
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

  # epmd does not report that it is ready.
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
