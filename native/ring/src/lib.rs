//! The two shared rings of a tube: page layout, record ring, wake-up protocol.
//!
//! One ring carries messages in one direction, from one [`Producer`] to one [`Consumer`], through
//! one control page and 2^order data pages that two parties share and **neither trusts**. The byte
//! layout and the rules are wire version 1, documented in `docs/wire.md`; this crate implements
//! that document. It makes no system call: the caller maps the pages, sends the notifications (one
//! per `true` that [`Producer::publish`] and similar calls return) and sleeps.
//!
//! # What a hostile peer can do
//! Stop responding, send garbage as message bytes, send or withhold notifications. Nothing else:
//! each word of the peer is loaded once per operation and checked, and only the checked copy is
//! used; the own indices are private and only published. An impossible value is a [`Violation`],
//! after which the end stays closed.
//!
//! # The loop of each end
//! Sender: [`push`](Producer::push) some messages (short ones with [`put`](Producer::put), which is
//! faster), [`publish`](Producer::publish), notify if `true`. On [`Push::Full`]:
//! [`arm`](Producer::arm), notify if `notify`, try again if `ready`, else sleep. Receiver:
//! [`pull`](Consumer::pull) records, [`release_batch`](Consumer::release_batch) now and then, and
//! on [`Pull::Empty`]: [`arm`](Consumer::arm), notify if `notify`, go on if `ready`, else sleep.
//!
//! ```
//! use std::alloc::{Layout, alloc_zeroed, dealloc};
//! use std::ptr::NonNull;
//! use tube_ring::{Consumer, ControlPage, DataArea, Direction, PAGE, Producer, Progress, Pull, Push};
//!
//! let layout = Layout::from_size_align(2 * PAGE, PAGE)?;
//! // SAFETY: the layout has a size above zero.
//! let pages = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or("no memory")?;
//! // SAFETY: both pages are ours until `dealloc` below, and one producer and one consumer use them.
//! let (control, out, into) = unsafe {
//!     let area = pages.add(PAGE);
//!     (ControlPage::from_raw(pages), DataArea::from_raw(area, 0), DataArea::from_raw(area, 0))
//! };
//! control.initialise(Direction::Tx, 0, 0x5eed, &[42]);
//! assert_eq!(control.check(Direction::Tx, 0x5eed)?.grefs, [42]);
//!
//! let mut producer = Producer::new(control.clone(), out);
//! let mut consumer = Consumer::new(control, into, 1 << 20);
//! assert_eq!(producer.push(b"hello", &mut Progress::default(), usize::MAX)?, Push::Whole);
//! assert!(!producer.publish()?, "the consumer does not sleep, so do not notify it");
//!
//! let mut message = Vec::new();
//! assert_eq!(consumer.pull(&mut message, usize::MAX)?, Pull::Message(5));
//! assert_eq!(message, b"hello");
//! # drop((producer, consumer));
//! # // SAFETY: allocated above with the same layout; both ends are gone.
//! # unsafe { dealloc(pages.as_ptr(), layout) };
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod consumer;
mod control;
mod layout;
mod memory;
mod producer;
mod side;
mod violation;

pub use consumer::{Consumer, Pull, Sink};
pub use control::{Direction, Geometry, Live, Role};
pub use layout::{LIVE_NOCK, LIVE_TIP, MESSAGE_MAX, ORDER_MAX, PAGE, VERSION};
pub use memory::{ControlPage, DataArea, Fragment};
pub use producer::{Producer, Progress, Push};
pub use side::{Armed, Counters};
pub use violation::Violation;

/// Offsets and bits of wire version 1, for tests that act as a hostile peer.
#[doc(hidden)]
pub mod wire {
    pub use crate::layout::*;
}

/// Settings of the model checker: deliberately broken wake-up orders that it must catch.
#[cfg(loom)]
#[doc(hidden)]
pub mod model {
    pub use crate::memory::{Weakness, weaken};
}
