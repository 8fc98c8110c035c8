defmodule Tube.Xenstore.Watches do
  @moduledoc false
  # Maps events of the store to subscriptions. Pure: the client sends the messages.
  #
  # Watches are scarce (128 for a whole domain, its kernel's drivers included), so subscriptions to
  # one path share one watch of the store, and each gets only the events of its own `interest`.
  # Every registration has a fresh token: a late event of a removed watch never counts for a newer
  # one, and a watch can be set again while its removal is still under way.
  #
  # A subscription has at most one unacknowledged event; a `Backlog` keeps further ones. So neither
  # this process nor a mailbox grows without bound.

  alias Tube.Xenstore.Backlog
  alias Tube.Xenstore.Wire.Path

  defstruct shared: %{}, paths: %{}, subscriptions: %{}, tokens: %{}, next: 1

  @typedoc "The subscribing process and its token."
  @type key :: {pid(), token :: term()}

  @typedoc "The token of a watch on the wire."
  @type wire :: String.t()

  @typedoc "A message to a subscriber."
  @type message :: {pid(), {:xenstore_watch, token :: term(), path :: String.t()}}

  @opaque t :: %__MODULE__{}

  @spec new() :: t()
  def new, do: %__MODULE__{}

  @doc """
  Adds a subscription. `:register`: send a WATCH of `path` to the store; `:wait`: that is under way;
  `:watched`: it is done.
  """
  @spec add(t(), key(), String.t(), String.t()) ::
          {:register, wire(), t()} | {:wait, t()} | {:watched, t()} | {:error, :eexist}
  def add(watches, key, _path, _interest) when is_map_key(watches.subscriptions, key),
    do: {:error, :eexist}

  def add(watches, {pid, token} = key, path, interest) do
    subscription = %{
      path: path,
      interest: interest,
      state: :unconfirmed,
      first: not is_map_key(watches.shared, path),
      backlog: Backlog.new()
    }

    watches = %{
      watches
      | subscriptions: Map.put(watches.subscriptions, key, subscription),
        tokens: Map.update(watches.tokens, pid, MapSet.new([token]), &MapSet.put(&1, token))
    }

    case watches.shared do
      %{^path => shared} ->
        watches = put_shared(watches, path, index(shared, key, interest))
        {if(shared.confirmed, do: :watched, else: :wait), watches}

      _none ->
        wire = "tube-#{watches.next}"
        shared = %{wire: wire, confirmed: false, interests: %{}, sorted: :gb_sets.new()}
        watches = %{watches | next: watches.next + 1, paths: Map.put(watches.paths, wire, path)}
        {:register, wire, put_shared(watches, path, index(shared, key, interest))}
    end
  end

  @doc "The store watches. Returns the subscriptions that waited for that."
  @spec confirm(t(), wire()) :: {[key()], t()}
  def confirm(watches, wire) do
    case watches.paths do
      %{^wire => path} ->
        shared = Map.fetch!(watches.shared, path)
        {keys(shared), put_shared(watches, path, %{shared | confirmed: true})}

      _all_gone ->
        {[], watches}
    end
  end

  @doc "The store refuses to watch. Drops the subscriptions that waited for that, and returns them."
  @spec refuse(t(), wire()) :: {[key()], t()}
  def refuse(watches, wire) do
    case watches.paths do
      %{^wire => path} ->
        keys = watches.shared |> Map.fetch!(path) |> keys()

        {keys,
         Enum.reduce(keys, watches, fn key, watches -> watches |> remove(key) |> elem(1) end)}

      _all_gone ->
        {[], watches}
    end
  end

  @doc """
  Begins delivery to a subscription of a confirmed watch.

  A new watch of the store begins with an event. A subscription that joins an existing watch gets
  one from us, or it could miss an earlier change. If `fresh?` is false, the store had the watch
  already, and the first subscription gets one from us too.
  """
  @spec open(t(), key(), fresh? :: boolean()) :: {[message()], t()}
  def open(watches, key, fresh?) do
    case watches.subscriptions do
      %{^key => %{state: :unconfirmed, first: first} = subscription} ->
        backlog = subscription.backlog
        backlog = if first and fresh?, do: backlog, else: Backlog.push(backlog, subscription.path)
        deliver(watches, key, %{subscription | state: :idle, backlog: backlog})

      _gone ->
        {[], watches}
    end
  end

  @doc "Does this subscription exist?"
  @spec member?(t(), key()) :: boolean()
  def member?(watches, key), do: is_map_key(watches.subscriptions, key)

  @doc "Ends a subscription; `{:unwatch, path, wire}` if it was the last one of that watch."
  @spec remove(t(), key()) :: {:more | {:unwatch, String.t(), wire()}, t()}
  def remove(watches, {pid, token} = key) do
    case Map.pop(watches.subscriptions, key) do
      {nil, _subscriptions} ->
        {:more, watches}

      {%{path: path, interest: interest}, subscriptions} ->
        rest = MapSet.delete(watches.tokens[pid], token)

        tokens =
          if MapSet.size(rest) == 0,
            do: Map.delete(watches.tokens, pid),
            else: %{watches.tokens | pid => rest}

        watches = %{watches | subscriptions: subscriptions, tokens: tokens}
        leave(watches, path, unindex(watches.shared[path], key, interest))
    end
  end

  @doc "An event of the store."
  @spec event(t(), wire(), String.t()) :: {[message()], t()}
  def event(watches, wire, changed) do
    case watches.paths do
      %{^wire => path} ->
        watches.shared[path]
        |> concerned(changed)
        |> Enum.reduce({[], watches}, fn key, {messages, watches} ->
          {more, watches} = notify(watches, key, Map.fetch!(watches.subscriptions, key), changed)
          {more ++ messages, watches}
        end)

      # The watch was removed while this was under way.
      _none ->
        {[], watches}
    end
  end

  @doc "The subscriber is about to read: the next event may go to it."
  @spec acknowledge(t(), key()) :: {[message()], t()}
  def acknowledge(watches, key) do
    case watches.subscriptions do
      %{^key => %{state: :delivered} = subscription} -> deliver(watches, key, subscription)
      _nothing_delivered -> {[], watches}
    end
  end

  @doc "The tokens of a process."
  @spec tokens(t(), pid()) :: [term()]
  def tokens(watches, pid), do: watches.tokens |> Map.get(pid, []) |> Enum.to_list()

  @doc "Every process that has a subscription."
  @spec subscribers(t()) :: [pid()]
  def subscribers(watches), do: Map.keys(watches.tokens)

  defp notify(watches, key, subscription, changed) do
    subscription = %{subscription | backlog: Backlog.push(subscription.backlog, changed)}

    # Otherwise it must acknowledge an event first, or its watch is not confirmed.
    if subscription.state == :idle,
      do: deliver(watches, key, subscription),
      else: {[], put(watches, key, subscription)}
  end

  defp deliver(watches, {pid, token} = key, subscription) do
    case Backlog.pop(subscription.backlog) do
      :empty ->
        {[], put(watches, key, %{subscription | state: :idle})}

      {path, rest} ->
        message = {pid, {:xenstore_watch, token, path}}
        {[message], put(watches, key, %{subscription | state: :delivered, backlog: rest})}
    end
  end

  # Finds them through the tree, not by checking each subscription: a hostile domain determines the
  # number of events, and a hundred tubes may share one watch.
  defp concerned(shared, changed) do
    prefix = Path.prefix(changed)
    below = prefix |> :gb_sets.iterator_from(shared.sorted) |> within(prefix)

    # The prefix of the root matches the root itself.
    for interest <- Path.lineage(changed) ++ List.delete(below, changed),
        key <- Map.get(shared.interests, interest, []),
        do: key
  end

  defp within(iterator, prefix) do
    with {interest, iterator} <- :gb_sets.next(iterator),
         true <- String.starts_with?(interest, prefix) do
      [interest | within(iterator, prefix)]
    else
      _none_or_past -> []
    end
  end

  defp index(shared, key, interest) do
    interests = Map.update(shared.interests, interest, MapSet.new([key]), &MapSet.put(&1, key))
    %{shared | interests: interests, sorted: :gb_sets.add_element(interest, shared.sorted)}
  end

  defp unindex(shared, key, interest) do
    keys = MapSet.delete(shared.interests[interest], key)

    if MapSet.size(keys) == 0 do
      sorted = :gb_sets.del_element(interest, shared.sorted)
      %{shared | interests: Map.delete(shared.interests, interest), sorted: sorted}
    else
      %{shared | interests: %{shared.interests | interest => keys}}
    end
  end

  defp leave(watches, path, %{interests: none, wire: wire}) when none == %{} do
    shared = Map.delete(watches.shared, path)
    {{:unwatch, path, wire}, %{watches | shared: shared, paths: Map.delete(watches.paths, wire)}}
  end

  defp leave(watches, path, shared), do: {:more, put_shared(watches, path, shared)}

  defp keys(shared), do: for({_interest, keys} <- shared.interests, key <- keys, do: key)

  defp put(watches, key, subscription),
    do: %{watches | subscriptions: %{watches.subscriptions | key => subscription}}

  defp put_shared(watches, path, shared),
    do: %{watches | shared: Map.put(watches.shared, path, shared)}
end
