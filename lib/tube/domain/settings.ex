defmodule Tube.Domain.Settings do
  @moduledoc false
  # The platform of this VM, the place of its hypervisor, and the domain that it wants to be. Each
  # setting comes from the options, the application's environment, or the process's environment,
  # whichever has it first.
  #
  #     platform  :platform, config :tube, :platform, $TUBE_PLATFORM, else detected
  #     run_dir   :run_dir, config :tube, :run_dir, $TUBE_RUN_DIR, $XDG_RUNTIME_DIR/tube, /run/tube
  #     domid     :domid,   config :tube, :domid,   $TUBE_DOMID, else the lowest free one
  #
  # Detection: a run directory means the local platform; else Xen if the kernel has its device,
  # which is so in a Xen domain with its modules loaded; else local. Xen has no run directory, and
  # the domid can only be the one that Xen has assigned.
  #
  # An error names the place of the wrong setting, which is often not the obvious one.

  import Bitwise

  alias Tube.Domain.RawFile

  @max_domid Tube.Paths.max_domid()

  # A unix socket address takes 107 bytes; the longest name below the run directory has 25.
  @run_dir_bytes 82

  # The device for xenstore. It exists in every Xen domain and nowhere else.
  @xenbus "/dev/xen/xenbus"

  @enforce_keys [:run_dir, :domid]
  defstruct [:run_dir, :domid, platform: :local]

  @type t :: %__MODULE__{
          platform: :local | :xen,
          run_dir: Path.t() | nil,
          domid: Tube.Paths.domid() | nil
        }
  @type error :: {:error, {:bad_run_dir | :einval, String.t()}}

  @doc "Finds and checks the settings. Raises ArgumentError for an option that does not exist."
  @spec resolve(keyword()) :: {:ok, t()} | error()
  def resolve(opts) do
    opts = Keyword.validate!(opts, [:platform, :run_dir, :domid])
    named_dir = find(opts, :run_dir, "TUBE_RUN_DIR")

    with {:ok, platform} <- opts |> find(:platform, "TUBE_PLATFORM") |> platform(named_dir),
         {:ok, run_dir} <- if(platform == :local, do: run_dir(named_dir), else: {:ok, nil}),
         {:ok, domid} <- opts |> find(:domid, "TUBE_DOMID") |> domid(),
         do: {:ok, %__MODULE__{platform: platform, run_dir: run_dir, domid: domid}}
  end

  defp platform(nil, nil),
    do: {:ok, if(match?({:ok, _stat}, RawFile.stat(@xenbus)), do: :xen, else: :local)}

  defp platform(nil, _named_dir), do: {:ok, :local}
  defp platform({platform, _where}, _dir) when platform in [:local, "local"], do: {:ok, :local}
  defp platform({platform, _where}, _dir) when platform in [:xen, "xen"], do: {:ok, :xen}

  defp platform({other, where}, _dir),
    do: {:error, {:einval, "#{where} is #{inspect(other)}: a platform is local or xen"}}

  defp find(opts, key, variable) do
    with nil <- named(opts[key], "the option #{inspect(key)}"),
         nil <- named(Application.get_env(:tube, key), "config :tube, #{inspect(key)}"),
         do: named(variable(variable), variable)
  end

  defp named(nil, _where), do: nil
  defp named(value, where), do: {value, where}

  # An empty value counts as unset: that is how to unset a variable for one command.
  defp variable(name) do
    with "" <- System.get_env(name), do: nil
  end

  defp domid(nil), do: {:ok, nil}
  defp domid({domid, _where}) when domid in 0..@max_domid, do: {:ok, domid}

  defp domid({text, where}) when is_binary(text) do
    case Integer.parse(text) do
      {domid, ""} when domid in 0..@max_domid -> {:ok, domid}
      _other -> bad_domid(text, where)
    end
  end

  defp domid({other, where}), do: bad_domid(other, where)

  defp bad_domid(value, where),
    do:
      {:error,
       {:einval, "#{where} is #{inspect(value)}: a domid is a number from 0 to #{@max_domid}"}}

  defp run_dir(nil) do
    case variable("XDG_RUNTIME_DIR") do
      nil ->
        run_dir(
          {"/run/tube",
           "the default run directory (TUBE_RUN_DIR and XDG_RUNTIME_DIR are not set)"}
        )

      dir ->
        run_dir({Path.join(dir, "tube"), "$XDG_RUNTIME_DIR/tube"})
    end
  end

  defp run_dir({path, where}) when is_binary(path) do
    cond do
      Path.type(path) != :absolute or String.contains?(path, <<0>>) ->
        bad_run_dir(path, where, "an absolute path is needed")

      byte_size(path) > @run_dir_bytes ->
        bad_run_dir(
          path,
          where,
          "it is longer than #{@run_dir_bytes} bytes, no socket below it could be bound"
        )

      true ->
        path |> RawFile.expand() |> check(where)
    end
  end

  defp run_dir({other, where}), do: bad_run_dir(other, where, "a path (a string) is needed")

  # A user who may write to the directory could replace the hub's socket.
  defp check(path, where) do
    with {:ok, stat} <- RawFile.stat(path),
         {:ok, %{uid: me}} <- RawFile.stat("/proc/self") do
      cond do
        stat.type != :directory ->
          bad_run_dir(path, where, "it is not a directory")

        stat.uid not in [0, me] ->
          bad_run_dir(
            path,
            where,
            "it belongs to user #{stat.uid}; it must belong to us (user #{me}) or root"
          )

        (stat.mode &&& 0o022) != 0 ->
          mode = stat.mode |> band(0o7777) |> Integer.to_string(8)

          bad_run_dir(
            path,
            where,
            "its group or others may write to it (mode #{mode}); it must be 0700, or 0711 for domains with owners"
          )

        true ->
          {:ok, path}
      end
    else
      # The hub creates it if its parent exists.
      {:error, :enoent} -> parent(path, where)
      {:error, reason} -> bad_run_dir(path, where, posix(reason))
    end
  end

  defp parent(path, where) do
    parent = Path.dirname(path)

    case RawFile.stat(parent) do
      {:ok, %{type: :directory}} ->
        {:ok, path}

      {:ok, _other} ->
        bad_run_dir(path, where, "#{parent} is not a directory")

      {:error, reason} ->
        bad_run_dir(path, where, "it cannot be created, #{parent}: #{posix(reason)}")
    end
  end

  defp posix(reason), do: to_string(:file.format_error(reason))

  defp bad_run_dir(value, where, why),
    do: {:error, {:bad_run_dir, "#{where} is #{inspect(value)}: #{why}"}}
end
