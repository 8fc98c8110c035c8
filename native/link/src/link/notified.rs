//! The API of a link's driver: on a notification, deliver, wake, and detect the end.

use super::Link;
use crate::error::{Fail, LinkError};
use crate::half::{Deferred, Receiver};
use crate::outcome::{Delivered, Outcome};
use crate::status::Event;
use crate::vm::{Deliver, Notifier, Vm};

impl<V: Vm> Link<V> {
    /// The event channel's descriptor is readable: delivers, wakes, and detects the end.
    pub fn notified(&self, target: &mut impl Deliver<V>) -> Outcome {
        // While there is more to deliver than one call may, leave the notification pending: it
        // leads to another call. Do not arm before acknowledging it: that could consume the one
        // just asked for.
        if self.deliver(target, |_| false) == Delivered::Budget {
            self.settle(target);
            return Outcome::Ready;
        }
        let Some(channel) = self.channel() else {
            return Outcome::Idle;
        };
        self.check_peer(channel.acknowledge());
        self.proceed(target)
    }

    /// Does the same without a notification. Call it when the link starts, when active mode is set,
    /// and when the last call returned [`Outcome::Later`].
    pub fn resume(&self, target: &mut impl Deliver<V>) -> Outcome {
        self.check_peer(false);
        self.proceed(target)
    }

    fn proceed(&self, target: &mut impl Deliver<V>) -> Outcome {
        let delivered = self.deliver(target, |_| true);
        self.settle(target);
        Outcome::after(delivered)
    }

    /// Delivers to an active owner. [`settle`](Self::settle) wakes other processes and reports
    /// events.
    pub(super) fn deliver(
        &self,
        target: &mut impl Deliver<V>,
        arm: impl FnOnce(&Receiver<V>) -> bool,
    ) -> Delivered {
        let mut deferred = Deferred::default();
        let delivered = self.with_rx(&mut deferred, |rx, deferred| {
            let now = self.status.now();
            let arm = arm(rx);
            let delivered = match now.has(Event::Violated) {
                true => Err(Fail::Violated),
                false => rx.deliver(target, now.has(Event::Gone), arm, deferred),
            };
            match delivered {
                Ok(Delivered::End) => {
                    self.note_end(rx);
                    self.deliver_end(rx, target, self.status.now().fault());
                }
                Err(Fail::Violated) => self.deliver_end(rx, target, Some(LinkError::Protocol)),
                _ => {}
            }
            delivered
        });
        deferred.notify_peer();
        if let Some(poller) = deferred.poller {
            target.data(poller);
        }
        match delivered {
            Ok(delivered) => delivered,
            // The message is still in the ring; try again.
            Err(LinkError::NoMemory) => Delivered::Budget,
            Err(_) => Delivered::Passive,
        }
    }

    fn deliver_end(
        &self,
        rx: &mut Receiver<V>,
        target: &mut impl Deliver<V>,
        reason: Option<LinkError>,
    ) {
        if rx.deliver_end(target, reason) {
            self.status.raise(Event::OwnerTold);
        }
    }

    /// Checks for the end of the peer's data, and for a peer that is gone unless `gone` is set.
    fn check_peer(&self, gone: bool) {
        _ = self.with_rx(&mut Deferred::default(), |rx, _| {
            // First, since a peer that leaves has declared its end before: in this order, a clean
            // end is never mistaken for a broken link.
            let gone = gone || rx.backing().peer_gone()?;
            self.note_end(rx);
            if gone {
                self.status.raise_gone(LinkError::PeerDown);
            }
            Ok(())
        });
        if self.status.now().has(Event::Gone) {
            self.leave_pages(false);
        }
    }

    /// Wakes the processes that a notification may be for, and reports events.
    fn settle(&self, notifier: &impl Notifier<V::Process>) {
        let mut deferred = Deferred::default();
        let now = self.status.now();
        let over = now.has(Event::Gone) || now.has(Event::Violated);
        _ = self.with_rx(&mut deferred, |rx, deferred| {
            if now.ends() {
                self.note_end(rx);
            }
            match over {
                true => rx.wake_owner(deferred),
                false => rx.wake_if_data(deferred)?,
            }
            Ok(())
        });
        _ = self.with_tx(&mut deferred, |tx, deferred| {
            match over {
                true => tx.wake_all(deferred),
                false => tx.wake_if_room(deferred)?,
            }
            Ok(())
        });
        self.finish(deferred, notifier);
    }
}

impl Outcome {
    /// The outcome of a round of deliveries with no notification pending.
    pub(super) fn after(delivered: Delivered) -> Outcome {
        match delivered {
            Delivered::Budget => Outcome::Later,
            _ => Outcome::Idle,
        }
    }
}
