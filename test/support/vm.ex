defmodule Tube.Test.VM do
  @moduledoc """
  Further Erlang VMs, each an operating system process of its own and, with `:domid`, a
  virtual domain of its own.

  Tests control a VM over its standard input and output (OTP's `:peer`), so without distribution,
  epmd or port numbers. If the test's own VM dies, the others see end of file on standard input and
  exit too.

      vm = VM.start!(run_dir: run_dir, domid: 5)
      {:ok, tube} = VM.run(vm, fn -> Tube.open(7) end)
      :ok = VM.run(vm, fn -> Tube.send(tube, "hello") end)

  `run/3` runs in one long-lived process of that VM (`:as` names further ones), so tubes that a call
  opens are still open, and messages sent to the process are still in its mailbox, at the next call.
  `use Tube.Test.VM` makes the functions of a test module work in other VMs: ExUnit compiles test
  files to memory only, so this module keeps their code and loads it into a VM on first use.

  A VM may also run in a guest of Xen: the variable `TUBE_TEST_ENTER` names a program that runs the
  command in its arguments in the domain `TUBE_DOMID`, with its own standard input and output.
  `bin/test-xen` sets it.
  """

  alias Tube.Test.Lab
  alias Tube.Test.VM.{Actor, Spare}

  @enforce_keys [:peer, :os_pid, :domid]
  defstruct @enforce_keys ++ [shared: false]

  @typedoc "`shared`: tests in the lab share the VM (`Tube.Test.VM.Spare`)."
  @type t :: %__MODULE__{
          peer: pid,
          os_pid: pos_integer,
          domid: non_neg_integer | nil,
          shared: boolean
        }

  # Limits that turn a hang into a failure. Normally everything takes milliseconds. `Lab.timeout/1`
  # extends them in the lab.
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

    * `:run_dir` - the value of `TUBE_RUN_DIR` in the VM
    * `:domid` - the value of `TUBE_DOMID` in the VM; unset by default
    * `:env` - further `{name, value}` pairs
    * `:args` - further arguments of `erl`
    * `:modules` - kept modules (`keep/2`) that functions in the VM will call
    * `:applications` - applications to start, by default `[:tube]`
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
        wait_boot: Lab.timeout(@boot)
      })

    vm = %__MODULE__{
      peer: peer,
      domid: domid,
      os_pid: peer |> :peer.call(:os, :getpid, []) |> List.to_integer()
    }

    for module <- [Actor | opts[:modules] || []], do: load(vm, module)

    for app <- Keyword.get(opts, :applications, [:tube]),
        do: {:ok, _started} = call(vm, :application, :ensure_all_started, [app])

    vm
  end

  @doc """
  Like `start/1`, for an ExUnit test: the VM is stopped when the test ends. In the lab this may
  return a VM of an earlier test (`Tube.Test.VM.Spare`).
  """
  @spec start!(keyword) :: t
  def start!(opts \\ []) do
    vm = Spare.take(opts) || %{start(opts) | shared: Spare.shared?(opts)}
    ExUnit.Callbacks.on_exit(fn -> Spare.keep(vm, opts) end)
    vm
  end

  @doc "Calls a function in the VM, in a process that lives for this call only."
  @spec call(t, module, atom, list, timeout) :: term
  def call(%__MODULE__{peer: peer}, module, function, args, timeout \\ Lab.timeout(@call)),
    do: :peer.call(peer, module, function, args, timeout)

  @doc """
  Runs `fun` in the VM and returns its result; an exception there is raised here.

    * `:as` - the name of the process that runs `fun`, by default `:main`; the process is started if
      necessary, and stays
    * `:timeout` - in milliseconds, by default #{@call}
  """
  @spec run(t, (() -> result), keyword) :: result when result: term
  def run(%__MODULE__{} = vm, fun, opts \\ []) when is_function(fun, 0) do
    timeout = opts |> Keyword.get(:timeout, @call) |> Lab.timeout()
    {:module, module} = Function.info(fun, :module)
    load(vm, module)

    case call(vm, Actor, :run, [Keyword.get(opts, :as, :main), fun], timeout) do
      {:ok, result} -> result
      {:raised, kind, reason, stacktrace} -> :erlang.raise(kind, reason, stacktrace)
      {:died, reason} -> exit({:vm_process_died, reason})
    end
  end

  @doc "Like `run/3` in a task of the caller, for VMs that wait for each other."
  @spec async(t, (() -> term), keyword) :: Task.t()
  def async(vm, fun, opts \\ []), do: Task.async(fn -> run(vm, fun, opts) end)

  @doc "Ends a process that `run/3` has started, with everything that it owns."
  @spec end_process(t, atom, term) :: :ok
  def end_process(vm, name, reason \\ :kill), do: call(vm, Actor, :stop, [name, reason])

  @doc "Ends all processes that `run/3` has started."
  @spec end_processes(t) :: :ok
  def end_processes(vm), do: call(vm, Actor, :stop_all, [])

  @doc "The VM's process id in the operating system."
  @spec os_pid(t) :: pos_integer
  def os_pid(%__MODULE__{os_pid: os_pid}), do: os_pid

  @doc "The number of descriptors that the VM has open, according to the operating system."
  @spec fd_count(t) :: non_neg_integer
  def fd_count(vm),
    do: vm |> system("ls", ["/proc/#{vm.os_pid}/fd"]) |> String.split() |> length()

  @doc "Ends the VM with SIGKILL; returns when the operating system has freed all it had."
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

  @doc "Stops the VM's applications and then the VM, if it still runs; returns when it is gone."
  @spec stop(t) :: :ok
  def stop(%__MODULE__{peer: peer} = vm),
    do: await_death(vm, fn -> :peer.cast(peer, Actor, :leave, []) end)

  @doc "Forgets a VM whose whole machine is gone, so that no exit status will come."
  @spec forget(t) :: :ok
  def forget(%__MODULE__{peer: peer}) do
    Process.exit(peer, :kill)
    :ok
  end

  @doc "Whether the VM still runs."
  @spec alive?(t) :: boolean
  def alive?(%__MODULE__{peer: peer}), do: Process.alive?(peer)

  # The process that holds the VM's standard streams ends with the exit status, which the system
  # reports only when the dead process holds nothing any more.
  defp await_death(%__MODULE__{peer: peer} = vm, kill) do
    monitor = Process.monitor(peer)
    # The pid of a dead VM may belong to another program by now.
    if Process.alive?(peer), do: kill.()

    receive do
      {:DOWN, ^monitor, :process, ^peer, _reason} -> :ok
    after
      Lab.timeout(@death) ->
        signal(vm, "KILL")

        receive do
          {:DOWN, ^monitor, :process, ^peer, _reason} -> :ok
        after
          Lab.timeout(@death) -> raise "VM #{vm.os_pid} did not die"
        end
    end
  end

  # Runs a program on the system of the VM: this one, or a guest.
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

  @doc "Arguments of `erl` for a VM with the code path of this one."
  @spec code_path() :: [charlist]
  def code_path do
    root = :code.root_dir()

    for dir <- :code.get_path(),
        dir != ~c"." and not List.starts_with?(dir, root),
        arg <- [~c"-pa", Path.expand(dir) |> to_charlist()],
        do: arg
  end

  @doc """
  Keeps the code of a module that is not in the code path. `use Tube.Test.VM` calls this; scripts
  call it with the result of `Code.compile_file/2`, and pass the modules to `start/1`.
  """
  @spec keep(Macro.Env.t() | module, binary) :: :ok
  def keep(%Macro.Env{module: module}, beam), do: keep(module, beam)
  def keep(module, beam), do: :persistent_term.put({__MODULE__, module}, beam)

  defp load(vm, module) do
    beam = :persistent_term.get({__MODULE__, module}, nil)

    if beam && call(vm, :code, :is_loaded, [module]) == false do
      {:module, ^module} = call(vm, :code, :load_binary, [module, ~c"nofile", beam])
    end

    :ok
  end
end
