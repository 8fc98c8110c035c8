//! What a process calls that looks in place of the bell. How long it is to look is `poll`'s to say.

use crate::after::Deferred;
use crate::flow::{LinkError, Outcome, Polled};
use crate::link::Link;
use crate::vm::{Deliver, Notifier, Vm};
use std::time::Duration;

impl<V: Vm> Link<V> {
    /// Sets the longest time to look for data before a bell is asked for; zero switches polling off. See
    /// [`poll`](Self::poll) for who looks. To be followed by a [`deliver_now`](Self::deliver_now) if somebody
    /// did so until now, and does no more.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn set_poll(
        &self,
        most: Duration,
        herald: &impl Notifier<V::Process>,
    ) -> Result<(), LinkError> {
        let mut after = Deferred::default();
        let done = self.with_rx(&mut after, |rx, after| {
            rx.poll.set(most);
            rx.wake_poller(after);
            Ok(())
        });
        self.finish(after, herald);
        done
    }

    /// A look at the link by a process that polls, for an active owner: one for each link at a time. (A
    /// passive owner looks for itself, by [`recv`](Self::recv).)
    ///
    /// While it is told to look again no bell is asked for, so it owes the link the next look, soon. When
    /// it is told to wait, it is registered, and is told (as an owner is, of data) once the bell has brought
    /// something, or the link is closed.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn poll(
        &self,
        poller: V::Process,
        herald: &impl Notifier<V::Process>,
    ) -> Result<Polled, LinkError> {
        let mut after = Deferred::default();
        let look = self.with_rx(&mut after, |rx, after| rx.look(poller, after));
        self.finish(after, herald);
        match look {
            // It is a delivery that tells of it.
            Err(LinkError::Protocol) => Ok(Polled::Ready),
            look => look,
        }
    }

    /// Delivers what there is, without a bell: for who polls, see [`poll`](Self::poll). Asks for a bell only
    /// if nobody may poll.
    pub fn deliver_now(&self, outlet: &mut impl Deliver<V>) -> Outcome {
        let delivered = self.deliver(outlet, |rx| !rx.poll.is_on());
        self.finish(Deferred::default(), outlet);
        Outcome::after(delivered)
    }
}
