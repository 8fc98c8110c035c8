//! The receiving API of a passive owner.

use super::Link;
use crate::error::{Fail, LinkError};
use crate::half::{Deferred, Receiver};
use crate::outcome::{Gathered, Received};
use crate::status::{End, Event};
use crate::vm::{BatchSink, MessageSink, Notifier, Vm};

impl<V: Vm> Link<V> {
    /// The next message, for a passive owner.
    ///
    /// # Errors
    /// Every [`LinkError`] except those of the sending side. [`LinkError::Invalid`] if active.
    pub fn recv(
        &self,
        owner: V::Process,
        sink: &mut impl MessageSink,
        notifier: &impl Notifier<V::Process>,
    ) -> Result<Received<V::Buffer>, LinkError> {
        self.receive(owner, notifier, |rx, end, deferred| {
            rx.recv(owner, sink, end, deferred)
        })
    }

    /// As many messages as are there, for a passive owner: at most `most`, and within the limits of
    /// one call.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and only if there is no message before the error.
    pub fn recv_many(
        &self,
        owner: V::Process,
        most: usize,
        batch: &mut impl BatchSink<V::Buffer>,
        notifier: &impl Notifier<V::Process>,
    ) -> Result<Gathered, LinkError> {
        self.receive(owner, notifier, |rx, end, deferred| {
            rx.recv_many(owner, most, batch, end, deferred)
        })
    }

    fn receive<R>(
        &self,
        owner: V::Process,
        notifier: &impl Notifier<V::Process>,
        take: impl FnOnce(&mut Receiver<V>, End, &mut Deferred<V::Process>) -> Result<R, Fail>,
    ) -> Result<R, LinkError> {
        let mut deferred = Deferred::default();
        let received = self.with_rx(&mut deferred, |rx, deferred| {
            let now = self.status.now();
            let received = match now.has(Event::Violated) && rx.is_owner(owner) {
                true => Err(LinkError::Protocol.into()),
                false => take(rx, now.end(), deferred),
            };
            if received.is_err() || now.ends() {
                self.note_end(rx);
            }
            if let Err(fail) = &received
                && fail.is_the_end()
            {
                self.status.raise(Event::OwnerTold);
            }
            received
        });
        self.finish(deferred, notifier);
        received
    }

    /// Ends the owner's wait.
    pub fn recv_cancel(&self, owner: V::Process) {
        _ = self.with_rx(&mut Deferred::default(), |rx, _| {
            rx.cancel(owner);
            Ok(())
        });
    }
}
