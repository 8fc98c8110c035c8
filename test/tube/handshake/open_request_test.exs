defmodule Tube.Handshake.OpenRequestTest do
  use ExUnit.Case, async: true

  alias Tube.Handshake.OpenRequest

  @nonce "00000000000000a0"
  @tip "/local/domain/5/data/tip/7/3"

  test "only what concerns this tip is looked at, and once for a knock" do
    assert OpenRequest.changed("/local/domain/7/data/nock/5/3/state", 5) == {:look, 7, 3}
    assert OpenRequest.changed("/local/domain/7/data/nock/5/3", 5) == {:look, 7, 3}
    assert OpenRequest.changed("/local/domain/7/data/nock/5", 5) == {:list, 7}

    for path <-
          ~w(/local/domain /local/domain/7/data/nock/5/3/nonce /local/domain/7/data/nock/6/3/state
                   /local/domain/5/data/tip/7/3/nock /local/domain/7/data/nock/5/03 /local/domain/7/name),
        do: assert(OpenRequest.changed(path, 5) == :ignore, path)
  end

  test "names of a listing" do
    assert OpenRequest.tids(["0", "12", "x", "01", "4294967296", ""]) == [0, 12]
  end

  test "five reads, the state first" do
    assert OpenRequest.requests(7, 5, 3) ==
             for(
               key <- ~w(state nonce version tip service),
               do: {:read, "/local/domain/7/data/nock/5/3/#{key}"}
             )
  end

  test "a knock" do
    assert judge([]) ==
             {:knock, %{peer: 7, tid: 3, service: "chat.v2", version: "1", nonce: @nonce}}
  end

  test "not a knock: not at 2, not there any more, or without a nonce to answer to" do
    for state <- ["1", "3", "4", "6", "", "02", "two"], do: assert(judge(state: state) == :ignore)
    assert judge(state: nil) == :ignore
    assert judge(nonce: nil) == :ignore
    assert judge(nonce: "a0") == :ignore
    assert judge(tip: nil) == :ignore
  end

  test "a knock that is refused" do
    assert {:refuse, %{nonce: @nonce, peer: 7, tid: 3}, :version} = judge(version: "2")
    assert {:refuse, _knock, :protocol} = judge(service: "no such/node")
    # The path of somebody else's entry is not followed, whatever stands there.
    assert {:refuse, _knock, :protocol} = judge(tip: "/local/domain/5/data/tip/8/3")
  end

  defp judge(changes) do
    values =
      Keyword.merge(
        [state: "2", nonce: @nonce, version: "1", tip: @tip, service: "chat_2ev2"],
        changes
      )

    answers =
      for key <- [:state, :nonce, :version, :tip, :service] do
        case values[key] do
          nil -> {:error, :enoent}
          value -> {:ok, value}
        end
      end

    OpenRequest.judge(answers, 7, 5, 3)
  end
end
