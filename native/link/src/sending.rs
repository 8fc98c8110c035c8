//! What senders call, and who ends the sending.

use crate::after::Deferred;
use crate::flow::{LinkError, Sent};
use crate::link::Link;
use crate::tx::Put;
use crate::vm::{Notifier, Vm};

impl<V: Vm> Link<V> {
    /// Puts a short message into the ring, if nothing stands in its way: the quickest way to send. False:
    /// nothing was done, and [`send`](Self::send) says why or does it.
    #[inline]
    pub fn put(&self, message: &[u8]) -> bool {
        if !self.status.now().is_plain() {
            return false;
        }
        let Ok(mut half) = self.tx.lock() else {
            return false;
        };
        let Some(tx) = half.as_mut() else {
            return false;
        };
        match tx.put_one(message) {
            Put::No => false,
            Put::Done => true,
            Put::Ring => {
                let channel = tx.ground.channel().clone();
                drop(half);
                channel.ring();
                true
            }
        }
    }

    /// Puts the next part of `message` into the ring; `done` is what the last call for it answered, else 0.
    ///
    /// # Errors
    /// Every [`LinkError`] but those of the receiving side.
    pub fn send(
        &self,
        sender: V::Process,
        message: &[u8],
        done: u64,
        herald: &impl Notifier<V::Process>,
    ) -> Result<Sent, LinkError> {
        self.send_parts(sender, &[message], done, herald)
    }

    /// [`send`](Self::send) of a message that lies in several places, the same at each call for it.
    ///
    /// # Errors
    /// As `send`.
    pub fn send_parts<B: AsRef<[u8]>>(
        &self,
        sender: V::Process,
        parts: &[B],
        done: u64,
        herald: &impl Notifier<V::Process>,
    ) -> Result<Sent, LinkError> {
        let mut after = Deferred::default();
        let sent = self.with_tx(&mut after, |tx, after| {
            self.status.now().may_send()?;
            tx.send(sender, parts, done, after)
        });
        self.finish(after, herald);
        sent
    }

    /// Puts messages into the ring, a bounded number of bytes and of messages in one call: how many are
    /// whole, and what became of the one after those. That is [`Sent::Whole`] if there is none, and
    /// [`Sent::More`] of no bytes if this was enough for one call.
    pub fn send_many<'m>(
        &self,
        sender: V::Process,
        messages: &mut impl Iterator<Item = &'m [u8]>,
        herald: &impl Notifier<V::Process>,
    ) -> (usize, Result<Sent, LinkError>) {
        let (mut after, mut count) = (Deferred::default(), 0);
        let next = self.with_tx(&mut after, |tx, after| {
            self.status.now().may_send()?;
            let (whole, next) = tx.send_many(sender, messages, after);
            count = whole;
            next
        });
        self.finish(after, herald);
        (count, next)
    }

    /// The sender waits no longer. Its message, if part of it is in the ring, ends there.
    ///
    /// # Errors
    /// [`LinkError::Closed`], [`LinkError::Protocol`].
    pub fn cancel(
        &self,
        sender: V::Process,
        herald: &impl Notifier<V::Process>,
    ) -> Result<(), LinkError> {
        let mut after = Deferred::default();
        let done = self.with_tx(&mut after, |tx, after| tx.cancel(sender, after));
        self.finish(after, herald);
        done
    }

    /// Declares that nothing more will be sent; a message in progress may be finished.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn shutdown(&self, herald: &impl Notifier<V::Process>) -> Result<(), LinkError> {
        let mut after = Deferred::default();
        let done = self.with_tx(&mut after, |tx, after| {
            tx.shutdown(after);
            Ok(())
        });
        self.finish(after, herald);
        done
    }
}
