//! The two halves of a link, each used under its own lock: [`Sender`] and [`Receiver`]. `mod` has
//! what both of them use: the work that they defer, and the spin before they sleep.

mod busy_poll;
mod receiver;
mod sender;

use crate::channel::Channel;
use crate::error::Fail;
use std::sync::Arc;
use tube_ring::Violation;

pub use receiver::Active;
pub(crate) use receiver::Receiver;
pub(crate) use sender::{Put, Sender, SenderInfo};

/// Work deferred until the lock is released: no lock is held while the VM or the event channel is
/// called.
pub(crate) struct Deferred<P> {
    /// Senders to wake.
    pub(crate) senders: Vec<P>,
    /// The owner to wake.
    pub(crate) owner: Option<P>,
    /// The busy-polling process to wake.
    pub(crate) poller: Option<P>,
    /// The peer must be notified.
    pub(crate) notify: bool,
    /// The channel to notify it through, set when the lock is released.
    pub(crate) channel: Option<Arc<Channel>>,
}

impl<P> Default for Deferred<P> {
    fn default() -> Self {
        Deferred {
            // An empty vector has no memory, so the common case allocates nothing.
            senders: Vec::new(),
            owner: None,
            poller: None,
            notify: false,
            channel: None,
        }
    }
}

impl<P> Deferred<P> {
    /// Notifies the peer if it must be.
    pub(crate) fn notify_peer(&self) {
        if let Some(channel) = &self.channel {
            channel.notify();
        }
    }
}

/// Bytes that an end must move without running out of work to be mid-stream.
const STREAM: u32 = 64 << 10;

/// Checks in one spin, with a pause after each: about five microseconds.
const CHECKS: usize = 192;
/// The same where another caller waits for the lock: about two.
const SHORT_CHECKS: usize = 64;

/// Spins briefly before an end sleeps mid-stream. Sleeping and being notified costs
/// each end many times what the other end, which is running, needs to go on by one message.
pub(crate) struct Spin {
    moved: u32,
    checks: usize,
}

impl Spin {
    pub(crate) fn new() -> Spin {
        Spin {
            moved: 0,
            checks: CHECKS,
        }
    }

    /// Spins for a shorter time from here on.
    pub(crate) fn shorten(&mut self) {
        self.checks = SHORT_CHECKS;
    }

    /// Counts a message of so many bytes.
    #[inline]
    pub(crate) fn moved(&mut self, bytes: u32) {
        self.moved = self.moved.saturating_add(bytes);
    }

    /// Whether this end, now without work, was mid-stream. Starts counting again.
    pub(crate) fn is_due(&mut self) -> bool {
        std::mem::take(&mut self.moved) >= STREAM
    }

    /// Whether `ready` becomes true during one spin. Does not spin if the peer sleeps, since it is
    /// notified only after the call.
    pub(crate) fn until<P>(
        &self,
        deferred: &Deferred<P>,
        mut ready: impl FnMut() -> Result<bool, Violation>,
    ) -> Result<bool, Fail> {
        if deferred.notify {
            return Ok(false);
        }
        for _ in 0..self.checks {
            if ready()? {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spin_is_due_once_after_enough_bytes() {
        let mut spin = Spin::new();
        assert!(!spin.is_due());
        spin.moved(STREAM - 1);
        spin.moved(1);
        assert!(spin.is_due());
        assert!(!spin.is_due());
        spin.moved(STREAM - 1);
        assert!(!spin.is_due());
        spin.moved(1);
        assert!(!spin.is_due(), "earlier bytes do not count");
        spin.moved(u32::MAX);
        spin.moved(1);
        assert!(spin.is_due());
    }

    #[test]
    fn a_spin_checks_until_ready_and_not_forever() {
        let mut spin = Spin::new();
        for checks in [CHECKS, SHORT_CHECKS] {
            for (ready_at, found) in [(1, true), (checks, true), (checks + 1, false)] {
                let mut checked = 0;
                let ready = || {
                    checked += 1;
                    Ok(checked == ready_at)
                };
                assert_eq!(spin.until(&Deferred::<()>::default(), ready), Ok(found));
                assert_eq!(checked, ready_at.min(checks));
            }
            spin.shorten();
        }
    }

    #[test]
    fn does_not_spin_while_the_peer_is_yet_to_be_notified() {
        let deferred = Deferred::<()> {
            notify: true,
            ..Deferred::default()
        };
        let never = || unreachable!("the peer sleeps");
        assert_eq!(Spin::new().until(&deferred, never), Ok(false));
    }

    #[test]
    fn a_spin_reports_a_violation() {
        let violated = || Err(Violation::State(7));
        assert_eq!(
            Spin::new().until(&Deferred::<()>::default(), violated),
            Err(Fail::Violated)
        );
    }
}
