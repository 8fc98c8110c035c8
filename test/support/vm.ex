defmodule Tube.Test.VM do
  @moduledoc """
  Further Erlang VMs, each an operating system process of its own and, with `:domid`, a
  virtual domain of its own.

  A VM is driven over its standard input and output (OTP's `:peer`), so no distribution, no
  epmd and no port number stand between a test and what it tests. Should the test's own VM
  die, the others see end of file on standard input and leave too.

      vm = VM.start!(run_dir: run_dir, domid: 5)
      {:ok, tube} = VM.run(vm, fn -> Tube.open(7) end)
      :ok = VM.run(vm, fn -> Tube.send(tube, "hello") end)

  `run/3` runs in one long-lived process of that VM (`:as` names further ones), so what a
  call opens is still open, and what was sent to that process is still in its mailbox, when
  the next call comes. Functions of a test module work after `use Tube.Test.VM`: ExUnit
  compiles test files to memory only, so their code is kept here and sent over on first use.

  A VM may also be in a guest of Xen, or wherever a program gets one into: the variable
  `TUBE_TEST_ENTER` names a program that runs the command of its arguments in the domain of
  `TUBE_DOMID`, with its own standard input and output. `bin/test-xen` sets it.
  """

  alias Tube.Test.Lab
  alias Tube.Test.VM.{Actor, Spare}

  @enforce_keys [:peer, :os_pid, :domid]
  defstruct @enforce_keys ++ [shared: false]

  @typedoc "`shared`: in the lab other tests have had it, or will (`Tube.Test.VM.Spare`)."
  @type t :: %__MODULE__{
          peer: pid,
          os_pid: pos_integer,
          domid: non_neg_integer | nil,
          shared: boolean
        }

  # Outer deadlines for what takes milliseconds when all is well: they turn a hang into a
  # failure and decide nothing else.
  # The lab has more patience.
  @boot 30_000
  @call 30_000
  @death 10_000

  @doc false
  defmacro __using__(_opts) do
    quote do
      @after_compile {unquote(__MODULE__), :keep}
      alias unquote(__MODULE__)
    end
  end

  @doc """
  Starts a VM. Options:

    * `:run_dir` - what `TUBE_RUN_DIR` is to be there
    * `:domid` - what `TUBE_DOMID` is to be there; without it the VM has none
    * `:env` - further `{name, value}` pairs
    * `:args` - further arguments of `erl`
    * `:modules` - kept modules (`keep/2`) that functions run there will call
    * `:applications` - started at once, `[:tube]` unless told
  """
  @spec start(keyword) :: t
  def start(opts \\ []) do
    domid = opts[:domid]
    :ok = Tube.Test.Node.Spare.make_way(domid)
    :ok = Spare.settle(domid)

    env =
      for {name, value} <-
            [{"TUBE_RUN_DIR", opts[:run_dir]}, {"TUBE_DOMID", domid} | opts[:env] || []],
          value != nil,
          do: {to_charlist(name), to_charlist(value)}

    {:ok, peer, _node} =
      :peer.start(%{
        connection: :standard_io,
        exec: exec(program("erl")),
        args: code_path() ++ Enum.map(opts[:args] || [], &to_charlist/1),
        env: env,
        wait_boot: Lab.patience(@boot)
      })

    vm = %__MODULE__{
      peer: peer,
      domid: domid,
      os_pid: peer |> :peer.call(:os, :getpid, []) |> List.to_integer()
    }

    for module <- [Actor | opts[:modules] || []], do: ship(vm, module)

    for app <- Keyword.get(opts, :applications, [:tube]),
        do: {:ok, _started} = call(vm, :application, :ensure_all_started, [app])

    vm
  end

  @doc """
  `start/1` in an ExUnit test: the VM is stopped when the test is over. In the lab it may be one that
  an earlier test has had (`Tube.Test.VM.Spare`).
  """
  @spec start!(keyword) :: t
  def start!(opts \\ []) do
    vm = Spare.take(opts) || %{start(opts) | shared: Spare.shared?(opts)}
    ExUnit.Callbacks.on_exit(fn -> Spare.keep(vm, opts) end)
    vm
  end

  @doc "Calls a function there, in a process that lives for this call only."
  @spec call(t, module, atom, list, timeout) :: term
  def call(%__MODULE__{peer: peer}, module, function, args, timeout \\ Lab.patience(@call)),
    do: :peer.call(peer, module, function, args, timeout)

  @doc """
  Runs `fun` there and returns what it returns; an exception there is raised here.

    * `:as` - the name of the process that runs it, `:main` unless told; started when there
      is none of that name, and kept
    * `:timeout` - in milliseconds, #{@call} unless told
  """
  @spec run(t, (() -> result), keyword) :: result when result: term
  def run(%__MODULE__{} = vm, fun, opts \\ []) when is_function(fun, 0) do
    timeout = opts |> Keyword.get(:timeout, @call) |> Lab.patience()
    {:module, module} = Function.info(fun, :module)
    ship(vm, module)

    case call(vm, Actor, :run, [Keyword.get(opts, :as, :main), fun], timeout) do
      {:ok, result} -> result
      {:raised, kind, reason, stacktrace} -> :erlang.raise(kind, reason, stacktrace)
      {:died, reason} -> exit({:vm_process_died, reason})
    end
  end

  @doc "`run/3` in a task of the caller, for two VMs that have to meet."
  @spec async(t, (() -> term), keyword) :: Task.t()
  def async(vm, fun, opts \\ []), do: Task.async(fn -> run(vm, fun, opts) end)

  @doc "Ends a process that `run/3` has started, with everything that it owned."
  @spec end_process(t, atom, term) :: :ok
  def end_process(vm, name, reason \\ :kill), do: call(vm, Actor, :stop, [name, reason])

  @doc "Ends all of them."
  @spec end_processes(t) :: :ok
  def end_processes(vm), do: call(vm, Actor, :stop_all, [])

  @doc "The process id that the operating system knows the VM by."
  @spec os_pid(t) :: pos_integer
  def os_pid(%__MODULE__{os_pid: os_pid}), do: os_pid

  @doc "How many descriptors the VM has open, as the operating system counts them."
  @spec fd_count(t) :: non_neg_integer
  def fd_count(vm),
    do: vm |> system("ls", ["/proc/#{vm.os_pid}/fd"]) |> String.split() |> length()

  @doc "Ends the VM by SIGKILL; returns when the operating system has taken everything from it."
  @spec kill9(t) :: :ok
  def kill9(vm) do
    await_death(vm, fn -> signal(vm, "KILL") end)
    Spare.replace(vm)
  end

  @doc "Sends a signal, such as \"STOP\" or \"CONT\"."
  @spec signal(t, String.t()) :: :ok
  def signal(vm, name) do
    _out = system(vm, "kill", ["-s", name, "#{vm.os_pid}"])
    :ok
  end

  @doc "Stops the VM's applications and then the VM; returns when it is gone. No harm if it is already."
  @spec stop(t) :: :ok
  def stop(%__MODULE__{peer: peer} = vm),
    do: await_death(vm, fn -> :peer.cast(peer, Actor, :leave, []) end)

  @doc "Lets go of a VM whose whole machine is gone, so that nobody will tell of its end."
  @spec forget(t) :: :ok
  def forget(%__MODULE__{peer: peer}) do
    Process.exit(peer, :kill)
    :ok
  end

  @doc "Whether the VM still runs."
  @spec alive?(t) :: boolean
  def alive?(%__MODULE__{peer: peer}), do: Process.alive?(peer)

  # The process that holds the VM's standard streams ends on the exit status, which the
  # system gives only when the dead process holds nothing any more.
  defp await_death(%__MODULE__{peer: peer} = vm, deed) do
    monitor = Process.monitor(peer)
    # The pid of a VM that has gone may be another program's by now.
    if Process.alive?(peer), do: deed.()

    receive do
      {:DOWN, ^monitor, :process, ^peer, _reason} -> :ok
    after
      Lab.patience(@death) ->
        signal(vm, "KILL")

        receive do
          {:DOWN, ^monitor, :process, ^peer, _reason} -> :ok
        after
          Lab.patience(@death) -> raise "VM #{vm.os_pid} did not die"
        end
    end
  end

  # A program of the system that the VM runs on: this one, or a guest.
  defp system(vm, name, args) do
    {program, first} = program(name)
    env = if vm.domid, do: [{"TUBE_DOMID", "#{vm.domid}"}], else: []
    {out, _status} = System.cmd(program, first ++ args, env: env, stderr_to_stdout: true)
    out
  end

  defp exec({program, first}), do: {to_charlist(program), Enum.map(first, &to_charlist/1)}

  defp program(name) do
    case Lab.enter() do
      nil -> {System.find_executable(name), []}
      enter -> {enter, [name]}
    end
  end

  @doc "Arguments of `erl` by which a VM finds by itself the code that is on this one's path."
  @spec code_path() :: [charlist]
  def code_path do
    root = :code.root_dir()

    for dir <- :code.get_path(),
        dir != ~c"." and not List.starts_with?(dir, root),
        arg <- [~c"-pa", Path.expand(dir) |> to_charlist()],
        do: arg
  end

  @doc """
  Remembers the code of a module that is on no path. Called by `use Tube.Test.VM`; scripts
  call it with what `Code.compile_file/2` gives, and name the modules to `start/1`.
  """
  @spec keep(Macro.Env.t() | module, binary) :: :ok
  def keep(%Macro.Env{module: module}, beam), do: keep(module, beam)
  def keep(module, beam), do: :persistent_term.put({__MODULE__, module}, beam)

  defp ship(vm, module) do
    beam = :persistent_term.get({__MODULE__, module}, nil)

    if beam && call(vm, :code, :is_loaded, [module]) == false do
      {:module, ^module} = call(vm, :code, :load_binary, [module, ~c"nofile", beam])
    end

    :ok
  end
end

defmodule Tube.Test.VM.Actor do
  @moduledoc false
  # The far half of Tube.Test.VM.run/3: named processes that run one function after another
  # and keep what those leave behind.

  @spec run(atom, (() -> term)) ::
          {:ok, term} | {:raised, :error | :exit | :throw, term, list} | {:died, term}
  def run(name, fun) do
    pid = ensure(registered(name))
    monitor = Process.monitor(pid)
    send(pid, {__MODULE__, :run, self(), monitor, fun})

    receive do
      {^monitor, outcome} ->
        Process.demonitor(monitor, [:flush])
        outcome

      {:DOWN, ^monitor, :process, ^pid, reason} ->
        {:died, reason}
    end
  end

  @spec stop(atom, term) :: :ok
  def stop(name, reason), do: end_registered(registered(name), reason)

  @spec stop_all() :: :ok
  def stop_all do
    prefix = Atom.to_string(registered(""))

    for name <- Process.registered(),
        String.starts_with?(Atom.to_string(name), prefix),
        do: end_registered(name, :kill)

    :ok
  end

  defp end_registered(registered, reason) do
    case Process.whereis(registered) do
      nil ->
        :ok

      pid ->
        monitor = Process.monitor(pid)
        Process.exit(pid, reason)
        receive do: ({:DOWN, ^monitor, :process, ^pid, _reason} -> :ok)
    end
  end

  # As init:stop/0 does, but that waits a whole second for OTP's peer, which does not heed it.
  @spec leave() :: no_return
  def leave do
    :logger.set_primary_config(:level, :none)

    for {app, _description, _version} <- :application.which_applications(),
        # Elixir's logger would set the level back.
        app not in [:kernel, :stdlib, :logger],
        do: :application.stop(app)

    :erlang.halt(0)
  end

  defp registered(name), do: :"#{inspect(__MODULE__)}.#{name}"

  defp ensure(name) do
    with nil <- Process.whereis(name) do
      pid = spawn(&loop/0)

      try do
        Process.register(pid, name)
        pid
      rescue
        # Another caller was first.
        ArgumentError ->
          Process.exit(pid, :kill)
          ensure(name)
      end
    end
  end

  # Only its own requests are taken out: all else in the mailbox belongs to the functions.
  defp loop do
    receive do
      {__MODULE__, :run, from, ref, fun} ->
        outcome =
          try do
            {:ok, fun.()}
          catch
            kind, reason -> {:raised, kind, reason, __STACKTRACE__}
          end

        send(from, {ref, outcome})
        loop()
    end
  end
end
