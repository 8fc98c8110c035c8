//! `tube-hub`: hypervisor and xenstored for the processes of one host.
//!
//! A *virtual domain* is a process (with its threads) that holds a control connection to the
//! hub. The hub gives it what Xen gives a domain: a number, a place in a store that speaks the
//! xenstore wire protocol ([`store`]), grants of memory to other domains, and event channels.
//! It only introduces domains to each other: what two of them then do passes through shared
//! memory and pipes that the hub has no copy of, so its end does not end them.
//!
//! One thread with an event loop ([`server`]); others only close what may take long to close. Every client may be hostile: no call blocks,
//! nothing that a client causes grows without a limit, and what is malformed ends the
//! connection that it came by, never the hub.

pub mod args;
mod background_close;
mod connections;
pub mod daemon;
pub mod domains;
pub mod evtchn;
pub mod fault;
pub mod grants;
mod life;
pub mod listener;
pub mod lock;
pub mod log;
pub mod owner;
pub mod packet;
pub mod poller;
pub mod probe;
mod requests;
pub mod rundir;
pub mod server;
pub mod socket_kind;
pub mod store;
mod streams;
