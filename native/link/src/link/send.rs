//! The sending API, for any process.

use super::Link;
use crate::error::LinkError;
use crate::half::{Deferred, Put};
use crate::outcome::Sent;
use crate::vm::{Notifier, Vm};

impl<V: Vm> Link<V> {
    /// The fast path: puts a short message into the ring, if that is all there is to do. `false`:
    /// nothing was done; [`send`](Self::send) does it or says why not.
    #[inline]
    pub fn put(&self, message: &[u8]) -> bool {
        if !self.status.now().is_undisturbed() {
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
            Put::Notify => {
                let channel = tx.backing().channel().clone();
                drop(half);
                channel.notify();
                true
            }
        }
    }

    /// Puts the next part of `message` into the ring; `done` is what the last call for it returned,
    /// at first 0.
    ///
    /// # Errors
    /// Every [`LinkError`] except those of the receiving side.
    pub fn send(
        &self,
        sender: V::Process,
        message: &[u8],
        done: u64,
        notifier: &impl Notifier<V::Process>,
    ) -> Result<Sent, LinkError> {
        self.send_parts(sender, &[message], done, notifier)
    }

    /// [`send`](Self::send) of a message in several parts, the same in each call for it.
    ///
    /// # Errors
    /// As `send`.
    pub fn send_parts<B: AsRef<[u8]>>(
        &self,
        sender: V::Process,
        parts: &[B],
        done: u64,
        notifier: &impl Notifier<V::Process>,
    ) -> Result<Sent, LinkError> {
        let mut deferred = Deferred::default();
        let sent = self.with_tx(&mut deferred, |tx, deferred| {
            self.status.now().may_send()?;
            tx.send(sender, parts, done, deferred)
        });
        self.finish(deferred, notifier);
        sent
    }

    /// Puts messages into the ring, within the limits of one call. Returns how many are whole, and
    /// the outcome of the next one: [`Sent::Whole`] if there is none, and [`Sent::More`] of no
    /// bytes if the limits were reached.
    pub fn send_many<'m>(
        &self,
        sender: V::Process,
        messages: &mut impl Iterator<Item = &'m [u8]>,
        notifier: &impl Notifier<V::Process>,
    ) -> (usize, Result<Sent, LinkError>) {
        let (mut deferred, mut count) = (Deferred::default(), 0);
        let next = self.with_tx(&mut deferred, |tx, deferred| {
            self.status.now().may_send()?;
            let (whole, next) = tx.send_many(sender, messages, deferred);
            count = whole;
            next
        });
        self.finish(deferred, notifier);
        (count, next)
    }

    /// Ends the sender's wait, and aborts its message if part of it is in the ring.
    ///
    /// # Errors
    /// [`LinkError::Closed`], [`LinkError::Protocol`].
    pub fn cancel(
        &self,
        sender: V::Process,
        notifier: &impl Notifier<V::Process>,
    ) -> Result<(), LinkError> {
        let mut deferred = Deferred::default();
        let done = self.with_tx(&mut deferred, |tx, deferred| tx.cancel(sender, deferred));
        self.finish(deferred, notifier);
        done
    }

    /// Declares that nothing more will be sent; a message in progress may still be completed.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn shutdown(&self, notifier: &impl Notifier<V::Process>) -> Result<(), LinkError> {
        let mut deferred = Deferred::default();
        let done = self.with_tx(&mut deferred, |tx, deferred| {
            tx.shutdown(deferred);
            Ok(())
        });
        self.finish(deferred, notifier);
        done
    }
}
