//! One end of a tube: two rings, an event channel, and the rules between them. Nothing here depends
//! on Erlang: a [`Vm`] defines a process and a buffer, and the tests have one of their own.
//!
//! A [`Link`] has two halves, each under its own lock, which is held for a bounded amount of work:
//! the sending half, which any process may use, and the receiving half, which belongs to an owner.
//! Call
//!
//! * [`Link::send`], [`Link::recv`] and [`Link::recv_many`] from processes; all return at once, and
//!   register the caller if there is nothing to do yet;
//! * [`Link::notified`] when the event channel's descriptor is readable, which wakes registered
//!   processes, delivers to an active owner, and detects the end;
//! * [`Link::close`] at last, which releases everything.
//!
//! Messages and wake-ups go out through a [`Notifier`] and a [`Deliver`]. Each [`Event`], which
//! concerns the link as a whole, is reported once, through whichever call comes next.

mod channel;
mod error;
mod half;
mod limits;
mod link;
mod memory;
mod outcome;
mod status;
mod vm;

pub use channel::{Channel, LiveCounts};
pub use error::{ConnectError, LinkError};
pub use half::Active;
pub use link::{Info, Link, Offer, Refs};
pub use outcome::{Gathered, Outcome, Polled, Received, Sent};
pub use status::Event;
pub use tube_ring::{Counters, Fragment};
pub use vm::{BatchSink, Buffer, Deliver, MessageSink, Notifier, NullDeliver, Vm};
