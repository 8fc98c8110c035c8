defmodule Tube.Test.Lab do
  @moduledoc """
  The Xen lab that `bin/test-xen` boots, and operations on whole domains in it.

  Tests tagged `:xen` run only in the lab, and tests tagged `:hub` only outside of it.
  """

  # Limit for a shell script. The lab is emulated, perhaps on a busy machine.
  @limit 120_000

  @doc "Whether the tests run in the lab."
  @spec here?() :: boolean
  def here?, do: enter() != nil

  @doc "The program that runs a command in the domain `TUBE_DOMID`; nil outside of the lab."
  @spec enter() :: Path.t() | nil
  def enter, do: System.get_env("TUBE_TEST_ENTER")

  @doc "The amount of work for a test: `usual`, or `emulated` in the lab, where it is emulated."
  @spec amount(term, term) :: term
  def amount(usual, emulated), do: if(here?(), do: emulated, else: usual)

  @doc """
  A limit in milliseconds for something that normally takes no time. Longer in the lab, which shares
  its machine with other programs.
  """
  @spec timeout(pos_integer) :: pos_integer
  def timeout(milliseconds), do: amount(milliseconds, 6 * milliseconds)

  @doc "Runs a shell script in a domain, as root; returns its output, including errors."
  @spec sh(non_neg_integer, String.t()) :: String.t()
  def sh(domid, script) do
    env = [{"TUBE_DOMID", "#{domid}"}]

    task =
      Task.async(fn -> System.cmd(enter(), ["sh", "-c", "exec 2>&1\n" <> script], env: env) end)

    {printed, 0} = Task.await(task, @limit)
    String.trim_trailing(printed)
  end

  @doc """
  Creates another guest, and returns its domid when it is ready. `settings` are those of
  `test/xen/inside/defaults`.
  """
  @spec create!(keyword, pos_integer) :: pos_integer
  def create!(settings \\ [], tries \\ 6) do
    words = for {key, value} <- settings, do: " #{key}=#{value}"
    # Its boot messages are on the console.
    printed = sh(0, "/lab/create next#{words}; /lab/await $(cat /run/last) || echo ended")

    case Integer.parse(printed) do
      {domid, ""} -> domid
      # With QEMU's SVM one of three PVH guests dies while its kernel boots: test/xen/README.md.
      _ended when printed == "ended" and tries > 1 -> retry!(settings, tries - 1)
      _error -> raise "no guest was created: #{printed}"
    end
  end

  # Any other guest must boot at the first attempt.
  defp retry!(settings, tries) do
    if settings[:TYPE] == "pvh",
      do: create!(settings, tries),
      else: raise("a guest ended before it was ready")
  end

  @doc "Destroys a guest, like a power failure."
  @spec destroy(pos_integer) :: :ok
  def destroy(domid) do
    "" = sh(0, "xl destroy #{domid}")
    :ok
  end

  @doc "Makes the kernel of a guest panic, which ends the guest."
  @spec crash(pos_integer) :: :ok
  def crash(domid) do
    # In the background: the caller would wait for an exit status that never comes.
    "" = sh(domid, "(sleep 1; echo c >/proc/sysrq-trigger) </dev/null >/dev/null 2>&1 &")
    :ok
  end

  @doc """
  The domains of the hypervisor as `{name, domid}`. A dead domain that remains because another one
  maps its memory has the name "(null)".
  """
  @spec domains() :: [{String.t(), non_neg_integer}]
  def domains do
    [_titles | lines] = 0 |> sh("xl list") |> String.split("\n")

    for line <- lines do
      [name, domid | _more] = String.split(line)
      {name, String.to_integer(domid)}
    end
  end
end
