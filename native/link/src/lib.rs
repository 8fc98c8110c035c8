//! One end of a tube: two rings, an event channel, and the rules between them. There is no Erlang in
//! here; a [`Vm`] says what a process and a buffer are, and the tests have a toy one.
//!
//! A [`Link`] has two halves, each under its own lock, held for a bounded piece of work: the sending
//! half, which any process may use, and the receiving half, which belongs to an owner. Whoever drives
//! it calls
//!
//! * [`Link::send`], [`Link::recv`] and [`Link::recv_many`] from processes; all answer at once, with a
//!   registration when there is nothing to do yet;
//! * [`Link::bell`] when the event channel's descriptor is readable, which wakes the registered,
//!   delivers to an active owner, and notices the end;
//! * [`Link::close`] at last, which gives everything back.
//!
//! Messages and wake-ups go out through a [`Notifier`] and an [`Deliver`]. What happened to the link as
//! a whole ([`Event`]) is reported once, to whoever calls next.

mod after;
mod assembly;
mod bell;
mod channel;
mod flow;
mod ground;
mod info;
mod linger;
mod link;
mod live_counts;
mod looking;
mod make;
mod memory;
mod poll;
mod rx;
mod sending;
mod status;
mod tx;
mod vm;

pub use channel::Channel;
pub use flow::{Active, Gathered, LinkError, Outcome, Polled, Received, Sent};
pub use info::Info;
pub use link::Link;
pub use live_counts::LiveCounts;
pub use make::{ConnectError, Offer, Refs};
pub use status::Event;
pub use tube_ring::{Counters, Fragment};
pub use vm::{BatchSink, Buffer, Deliver, MessageSink, Notifier, NullDeliver, Vm};
