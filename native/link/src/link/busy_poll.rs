//! Busy-polling API. How long to poll is up to `half::busy_poll`.

use super::Link;
use crate::error::LinkError;
use crate::half::Deferred;
use crate::outcome::{Outcome, Polled};
use crate::vm::{Deliver, Notifier, Vm};
use std::time::Duration;

impl<V: Vm> Link<V> {
    /// Sets the longest time to busy-poll for data before asking for a notification; zero switches
    /// polling off. If that stops a process that polls by [`busy_poll`](Self::busy_poll), call
    /// [`deliver_now`](Self::deliver_now) afterwards.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn set_busy_poll(
        &self,
        most: Duration,
        notifier: &impl Notifier<V::Process>,
    ) -> Result<(), LinkError> {
        let mut deferred = Deferred::default();
        let done = self.with_rx(&mut deferred, |rx, deferred| {
            rx.set_busy_poll(most, deferred);
            Ok(())
        });
        self.finish(deferred, notifier);
        done
    }

    /// Polls once for an active owner, by one process per link. (A passive owner polls by
    /// [`recv`](Self::recv).)
    ///
    /// After [`Polled::Again`], poll again soon: no notification was asked for. After
    /// [`Polled::Wait`], the process is registered: like an owner, it is woken when a notification
    /// has brought data, or when the link is closed.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn busy_poll(
        &self,
        poller: V::Process,
        notifier: &impl Notifier<V::Process>,
    ) -> Result<Polled, LinkError> {
        let mut deferred = Deferred::default();
        let polled = self.with_rx(&mut deferred, |rx, deferred| rx.busy_poll(poller, deferred));
        self.finish(deferred, notifier);
        match polled {
            // The delivery reports it.
            Err(LinkError::Protocol) => Ok(Polled::Ready),
            polled => polled,
        }
    }

    /// Delivers what is there, without a notification: see [`busy_poll`](Self::busy_poll). Asks for
    /// a notification only if polling is off.
    pub fn deliver_now(&self, target: &mut impl Deliver<V>) -> Outcome {
        let delivered = self.deliver(target, |rx| !rx.is_busy_polled());
        self.finish(Deferred::default(), target);
        Outcome::after(delivered)
    }
}
