defmodule Tube.LabelTest do
  # The labels of processes in observer and crash reports.
  use Tube.Test.OneVM, async: true

  test "tubes and listeners have labels", %{vm: vm} do
    assert VM.run(vm, fn ->
             {:ok, listener} = Tube.listen(service: "seen", active: false)
             {:ok, nock} = Tube.open(5, service: "seen", active: false)
             {:ok, tip} = Tube.accept(listener)
             for pid <- [listener, nock.pid, tip.pid], do: Tube.LabelTest.label(pid)
           end) == [{:tube_listener, "seen"} | List.duplicate({:tube, "5:0 -> 5", "seen"}, 2)]
  end

  @doc false
  def label(pid) do
    if function_exported?(:proc_lib, :get_label, 1) do
      apply(:proc_lib, :get_label, [pid])
    else
      {:dictionary, dictionary} = Process.info(pid, :dictionary)
      dictionary[:"$process_label"]
    end
  end
end
