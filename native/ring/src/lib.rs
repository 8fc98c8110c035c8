//! The two shared rings of a tube: page layout, record ring, wake-up protocol.
//!
//! One ring carries messages in one direction, from one [`Producer`] to one [`Consumer`], through
//! one control page and 2^order data pages that two parties share and **neither trusts**. The byte
//! layout and the rules are wire version 1, written down in `docs/wire.md`; this crate is that
//! document in code. It makes no system call: its user maps the pages, rings the bell (one event
//! per `true` that [`Producer::publish`] and its kind return) and sleeps.
//!
//! # What a hostile peer can do
//! Refuse to go on, send garbage as message bytes, cause or withhold bells. Nothing else: each word
//! of the peer is loaded once per operation, checked, and only the checked copy is used; own
//! indices are private and merely published. A value that cannot be is a [`Violation`], after which
//! the end stays shut.
//!
//! # The loop of each end
//! Sender: [`push`](Producer::push) some messages (short ones by [`put`](Producer::put), which is quicker), [`publish`](Producer::publish), ring if told to.
//! On [`Push::Full`]: [`arm`](Producer::arm), ring if told to, try again if ready, else sleep.
//! Receiver: [`pull`](Consumer::pull) records, [`release_batch`](Consumer::release_batch) now and
//! then, and on [`Pull::Empty`]: [`arm`](Consumer::arm), ring if told to, go on if ready, else sleep.
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
//! assert!(!producer.publish()?, "nobody sleeps, so nobody is to be woken");
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
mod counters;
mod layout;
mod memory;
mod producer;
mod record;
mod sink;
mod sync;
mod violation;
mod wake;

pub use consumer::{Consumer, Pull};
pub use control::{Direction, Geometry, Live, Role};
pub use counters::Counters;
pub use layout::{LIVE_NOCK, LIVE_TIP, MESSAGE_MAX, ORDER_MAX, PAGE, RECORD_ALIGN, VERSION};
pub use memory::{ControlPage, DataArea, Fragment};
pub use producer::{Producer, Progress, Push};
pub use sink::Sink;
pub use violation::Violation;
pub use wake::Armed;

/// Offsets and bits of wire version 1, for tests that play the hostile peer.
#[doc(hidden)]
pub mod wire {
    pub use crate::layout::*;
    pub use crate::record::{Kind, header};
}

/// Knobs of the model checker: deliberately broken wake-up orders that it must catch.
#[cfg(loom)]
#[doc(hidden)]
pub mod model {
    pub use crate::sync::{Weakness, weaken};
}
