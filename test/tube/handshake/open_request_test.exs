defmodule Tube.Handshake.OpenRequestTest do
  use ExUnit.Case, async: true

  alias Tube.Handshake.OpenRequest

  @nonce "00000000000000a0"
  @tip "/local/domain/5/data/tip/7/3"

  test "only changes for this tip are read, once for each open request" do
    assert OpenRequest.changed("/local/domain/7/data/nock/5/3/state", 5) == {:read, 7, 3}
    assert OpenRequest.changed("/local/domain/7/data/nock/5/3", 5) == {:read, 7, 3}
    assert OpenRequest.changed("/local/domain/7/data/nock/5", 5) == {:list, 7}

    for path <-
          ~w(/local/domain /local/domain/7/data/nock/5/3/nonce /local/domain/7/data/nock/6/3/state
                   /local/domain/5/data/tip/7/3/nock /local/domain/7/data/nock/5/03 /local/domain/7/name),
        do: assert(OpenRequest.changed(path, 5) == :ignore, path)
  end

  test "names of a directory" do
    assert OpenRequest.tids(["0", "12", "x", "01", "4294967296", ""]) == [0, 12]
  end

  test "five reads, the state first" do
    assert OpenRequest.reads(7, 5, 3) ==
             for(
               key <- ~w(state nonce version tip service),
               do: {:read, "/local/domain/7/data/nock/5/3/#{key}"}
             )
  end

  test "an open request" do
    assert parse([]) ==
             {:request, %{peer: 7, tid: 3, service: "chat.v2", version: "1", nonce: @nonce}}
  end

  test "not an open request: state not 2, node gone, or no nonce to reply to" do
    for state <- ["1", "3", "4", "6", "", "02", "two"], do: assert(parse(state: state) == :ignore)
    assert parse(state: nil) == :ignore
    assert parse(nonce: nil) == :ignore
    assert parse(nonce: "a0") == :ignore
    assert parse(tip: nil) == :ignore
  end

  test "an open request that is refused" do
    assert {:refuse, %{nonce: @nonce, peer: 7, tid: 3}, :version} = parse(version: "2")
    assert {:refuse, _request, :protocol} = parse(service: "no such/node")
    # The path of another tube's node is never followed.
    assert {:refuse, _request, :protocol} = parse(tip: "/local/domain/5/data/tip/8/3")
  end

  defp parse(changes) do
    values =
      Keyword.merge(
        [state: "2", nonce: @nonce, version: "1", tip: @tip, service: "chat_2ev2"],
        changes
      )

    replies =
      for key <- [:state, :nonce, :version, :tip, :service] do
        case values[key] do
          nil -> {:error, :enoent}
          value -> {:ok, value}
        end
      end

    OpenRequest.parse(replies, 7, 5, 3)
  end
end
