%% Distributed Erlang over tubes: `erl -proto_dist tube -start_epmd false -sname a@dom5`.
%%
%% The callbacks of a carrier for net_kernel, and the record for dist_util. The record grows between
%% releases, so this module is in Erlang and includes OTP's own header. Everything else is in
%% Tube.Dist.
%%
%% The tube's port is the distribution controller. The process that runs OTP's handshake owns the
%% tube, reads and writes it through the public API until the handshake is done, and then links to
%% the port: neither outlives the other.
-module(tube_dist).

-export([listen/1, listen/2, address/0, accept/1, accept_connection/5, setup/5, close/1, select/1,
         is_node_name/1]).
%% Spawned by the above, or called by dist_util.
-export([accept_loop/2, do_accept/6, do_setup/5, tick/1, getstat/1]).

-include_lib("kernel/include/net_address.hrl").
-include_lib("kernel/include/dist.hrl").
-include_lib("kernel/include/dist_util.hrl").

%% OTP calls this when listen/2 is undefined, as before OTP 24: then the host part is unknown.
listen(_Name) ->
    {error, "this release of OTP does not pass the host part of the node's name"}.

listen(Name, Host) ->
    case 'Elixir.Tube.Dist':listen(Name, Host) of
        {ok, Listener} -> {ok, {Listener, address(Host), -1}};
        {error, _Text} = Error -> Error
    end.

address() ->
    address(undefined).

address(Host) ->
    #net_address{address = Host, host = Host, protocol = tube, family = tube}.

close(Listener) ->
    'Elixir.Tube.Dist':close(Listener).

select(Node) ->
    'Elixir.Tube.Dist':'reachable?'(Node).

is_node_name(Node) ->
    dist_util:is_node_name(atom_to_list(Node)).

%% Incoming tubes

accept(Listener) ->
    spawn_opt(?MODULE, accept_loop, [self(), Listener], [link, {priority, max}]).

accept_loop(Kernel, Listener) ->
    {Tube, Next} = 'Elixir.Tube.Dist':accept(Listener),
    Kernel ! {accept, self(), Tube, tube, tube},
    receive
        {Kernel, controller, Pid} ->
            %% If the tube has ended in the meantime, its new owner finds out.
            _ = 'Elixir.Tube':controlling_process(Tube, Pid),
            Pid ! {self(), controller};
        {Kernel, unsupported_protocol} ->
            exit(unsupported_protocol)
    end,
    accept_loop(Kernel, Next).

accept_connection(Acceptor, Tube, MyNode, Allowed, SetupTime) ->
    spawn_opt(?MODULE, do_accept, [self(), Acceptor, Tube, MyNode, Allowed, SetupTime],
              dist_util:net_ticker_spawn_options()).

do_accept(Kernel, Acceptor, Tube, MyNode, Allowed, SetupTime) ->
    receive
        {Acceptor, controller} ->
            Timer = dist_util:start_timer(SetupTime),
            HSData = hs_data(Kernel, Tube, MyNode, Timer),
            dist_util:handshake_other_started(HSData#hs_data{allowed = Allowed})
    end.

%% Outgoing tubes

setup(Node, Type, MyNode, _LongOrShortNames, SetupTime) ->
    spawn_opt(?MODULE, do_setup, [self(), Node, Type, MyNode, SetupTime],
              dist_util:net_ticker_spawn_options()).

do_setup(Kernel, Node, Type, MyNode, SetupTime) ->
    Timer = dist_util:start_timer(SetupTime),
    case 'Elixir.Tube.Dist':connect(Node, SetupTime) of
        {ok, Tube} ->
            dist_util:reset_timer(Timer),
            HSData = hs_data(Kernel, Tube, MyNode, Timer),
            dist_util:handshake_we_started(HSData#hs_data{other_node = Node,
                                                          other_version = ?ERL_DIST_VER_HIGH,
                                                          request_type = Type});
        {error, Reason} ->
            ?shutdown2(Node, Reason)
    end.

%% The handshake and after

hs_data(Kernel, Tube, MyNode, Timer) ->
    #hs_data{kernel_pid = Kernel,
             this_node = MyNode,
             this_flags = 0,
             socket = Tube,
             timer = Timer,
             reject_flags = case 'Elixir.Tube.Dist':'fragments?'() of
                                true -> 0;
                                false -> ?DFLAG_FRAGMENTS
                            end,
             f_send = fun 'Elixir.Tube.Dist':send/2,
             f_recv = fun 'Elixir.Tube.Dist':recv/3,
             f_setopts_pre_nodeup = fun 'Elixir.Tube.Dist':control/1,
             f_setopts_post_nodeup = fun 'Elixir.Tube.Dist':input/1,
             f_getll = fun(#{port := Port}) -> {ok, Port} end,
             f_address = fun(_Tube, Node) -> remote_address(Node) end,
             mf_tick = fun ?MODULE:tick/1,
             mf_getstat = fun ?MODULE:getstat/1}.

remote_address(Node) ->
    case dist_util:split_node(Node) of
        {node, _Name, Host} -> address(Host);
        _ -> ?shutdown(Node)
    end.

tick(Tube) ->
    'Elixir.Tube.Dist':tick(Tube).

getstat(Tube) ->
    'Elixir.Tube.Dist':getstat(Tube).
