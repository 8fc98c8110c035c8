//! What the driver of a link does when the bell rings: delivers, wakes, and notices the end.

use crate::after::{Deferred, Fail};
use crate::flow::{LinkError, Outcome};
use crate::link::{Link, ring};
use crate::rx::{Delivered, Receiver};
use crate::status::Event;
use crate::vm::{Deliver, Notifier, Vm};

impl<V: Vm> Link<V> {
    /// The event channel's descriptor is readable.
    pub fn bell(&self, outlet: &mut impl Deliver<V>) -> Outcome {
        // While there is more to deliver than the budget allows, the bell stays: it will call again. To
        // arm before the bell is taken would be to ask for one that is taken with it.
        if self.deliver(outlet, |_| false) == Delivered::Budget {
            self.settle(outlet);
            return Outcome::Ready;
        }
        let Some(channel) = self.channel() else {
            return Outcome::Idle;
        };
        self.look(channel.acknowledge());
        self.go_on(outlet)
    }

    /// Looks at everything once, as after a bell: when data begins to flow, when the owner wants messages,
    /// and when the last look ended with [`Outcome::Later`].
    pub fn resume(&self, outlet: &mut impl Deliver<V>) -> Outcome {
        self.look(false);
        self.go_on(outlet)
    }

    fn go_on(&self, outlet: &mut impl Deliver<V>) -> Outcome {
        let delivered = self.deliver(outlet, |_| true);
        self.settle(outlet);
        Outcome::after(delivered)
    }

    /// Delivers what an active owner wants. Those who wait, and events, are left to [`settle`](Self::settle).
    pub(crate) fn deliver(
        &self,
        outlet: &mut impl Deliver<V>,
        arm: impl FnOnce(&Receiver<V>) -> bool,
    ) -> Delivered {
        let mut after = Deferred::default();
        let delivered = self.with_rx(&mut after, |rx, after| {
            let now = self.status.now();
            let arm = arm(rx);
            let delivered = match now.has(Event::Violated) {
                true => Err(Fail::Violated),
                false => rx.deliver(outlet, now.has(Event::Gone), arm, after),
            };
            match delivered {
                Ok(Delivered::End) => {
                    self.note_end(rx);
                    self.tell_end(rx, outlet, self.status.now().fault());
                }
                Err(Fail::Violated) => self.tell_end(rx, outlet, Some(LinkError::Protocol)),
                _ => {}
            }
            delivered
        });
        ring(&after);
        if let Some(poller) = after.poller {
            outlet.data(poller);
        }
        match delivered {
            Ok(delivered) => delivered,
            // The message is still there; try again.
            Err(LinkError::NoMemory) => Delivered::Budget,
            Err(_) => Delivered::Passive,
        }
    }

    fn tell_end(
        &self,
        rx: &mut Receiver<V>,
        outlet: &mut impl Deliver<V>,
        reason: Option<LinkError>,
    ) {
        if rx.tell_end(outlet, reason) {
            self.status.raise(Event::OwnerTold);
        }
    }

    /// Looks for the end of the peer's data and of the peer.
    fn look(&self, gone: bool) {
        _ = self.with_rx(&mut Deferred::default(), |rx, _| {
            // First, since a peer that goes has declared its end before: seen in this order, a clean end
            // is never taken for a broken link.
            let gone = gone || rx.ground.peer_gone()?;
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

    /// Wakes those for whom the bell may have rung, and reports what is to be reported.
    fn settle(&self, herald: &impl Notifier<V::Process>) {
        let mut after = Deferred::default();
        let now = self.status.now();
        let over = now.has(Event::Gone) || now.has(Event::Violated);
        _ = self.with_rx(&mut after, |rx, after| {
            if now.ends() {
                self.note_end(rx);
            }
            match over {
                true => rx.wake(after),
                false => rx.data(after)?,
            }
            Ok(())
        });
        _ = self.with_tx(&mut after, |tx, after| {
            match over {
                true => tx.wake_all(after),
                false => tx.space(after)?,
            }
            Ok(())
        });
        self.finish(after, herald);
    }
}
