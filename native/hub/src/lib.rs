//! `tube-hub`: hypervisor and xenstored for the processes of one host.
//!
//! A *virtual domain* is a process (with its threads) that holds a control connection to the hub.
//! The hub gives it what Xen gives a domain: a number, a home in a store that speaks the xenstore
//! wire protocol ([`store`]), grants of memory to other domains, and event channels. The hub only
//! introduces domains to each other: their data passes through shared memory and pipes of which the
//! hub keeps no copy, so they continue when the hub ends.
//!
//! One thread runs an event loop ([`server`]); others only close descriptors whose close may block.
//! Every client may be hostile: no call blocks, nothing that a client causes grows without a limit,
//! and malformed input ends the connection that it came on, never the hub.

pub mod args;
mod background_close;
pub mod daemon;
mod domains;
pub mod error;
mod evtchn;
mod grants;
mod listener;
mod lock;
pub mod log;
pub mod owner;
mod packet;
mod poller;
pub mod probe;
pub mod rundir;
pub mod server;
mod socket_kind;
pub mod store;
