defmodule Tube.Test.Lab do
  @moduledoc """
  The Xen lab, if `bin/test-xen` has booted it: what tests do to domains as a whole.

  Tests tagged `:xen` run in the lab only, and those tagged `:hub` only outside of it.
  """

  # What takes this long has failed: all of it is emulated, perhaps on a busy machine.
  @limit 120_000

  @doc "Whether there is one."
  @spec here?() :: boolean
  def here?, do: enter() != nil

  @doc "The program that runs another one in the domain of `TUBE_DOMID`, and nil outside of the lab."
  @spec enter() :: Path.t() | nil
  def enter, do: System.get_env("TUBE_TEST_ENTER")

  @doc "How much of something a test does: here, and in the lab, where every instruction is emulated."
  @spec amount(term, term) :: term
  def amount(usual, emulated), do: if(here?(), do: emulated, else: usual)

  @doc """
  How long to wait, in milliseconds, for what takes no time when all is well. More in the lab, which
  shares its machine with whatever else is there.
  """
  @spec patience(pos_integer) :: pos_integer
  def patience(milliseconds), do: amount(milliseconds, 6 * milliseconds)

  @doc "Runs a shell script in a domain, as root; returns what it prints, errors included."
  @spec sh(non_neg_integer, String.t()) :: String.t()
  def sh(domid, script) do
    env = [{"TUBE_DOMID", "#{domid}"}]

    task =
      Task.async(fn -> System.cmd(enter(), ["sh", "-c", "exec 2>&1\n" <> script], env: env) end)

    {printed, 0} = Task.await(task, @limit)
    String.trim_trailing(printed)
  end

  @doc """
  Makes one more guest, and returns its domid once it takes orders. `settings` are those of
  `test/xen/inside/defaults`.
  """
  @spec create!(keyword, pos_integer) :: pos_integer
  def create!(settings \\ [], tries \\ 6) do
    words = for {key, value} <- settings, do: " #{key}=#{value}"
    # What it says while it boots is on the console.
    printed = sh(0, "/lab/create next#{words}; /lab/await $(cat /run/last) || echo ended")

    case Integer.parse(printed) do
      {domid, ""} -> domid
      # QEMU's SVM loses one of three PVH guests while their kernel begins: test/xen/README.md.
      _ended when printed == "ended" and tries > 1 -> again!(settings, tries - 1)
      _trouble -> raise "no guest was made: #{printed}"
    end
  end

  # Any other guest that dies so is a failure.
  defp again!(settings, tries) do
    if settings[:TYPE] == "pvh",
      do: create!(settings, tries),
      else: raise("a guest has ended before it took orders")
  end

  @doc "Destroys a guest, as if its power were cut."
  @spec destroy(pos_integer) :: :ok
  def destroy(domid) do
    "" = sh(0, "xl destroy #{domid}")
    :ok
  end

  @doc "Makes the kernel of a guest panic, which ends the guest."
  @spec crash(pos_integer) :: :ok
  def crash(domid) do
    # Behind the back of its caller, who would otherwise wait for an end that nobody sends.
    "" = sh(domid, "(sleep 1; echo c >/proc/sysrq-trigger) </dev/null >/dev/null 2>&1 &")
    :ok
  end

  @doc """
  The domains as the hypervisor has them: `{name, domid}`. A dead one that is still here, because
  somebody maps its memory, has the name "(null)".
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
