//! The sending half: one message in progress at a time, and the senders that wait.

use super::{Deferred, Spin};
use crate::error::{Fail, LinkError};
use crate::limits::{BYTES_PER_CALL, MESSAGES_PER_CALL, TRIES_PER_CALL};
use crate::memory::{Backing, SharedPages};
use crate::outcome::Sent;
use std::sync::Arc;
use tube_ring::{Counters, Producer, Progress, Push};

/// The outcome of the fast path for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// The message is in the ring.
    Done,
    /// The message is in the ring, and the peer must be notified.
    Notify,
    /// The fast path is not possible.
    No,
}

/// The sending half's part of an [`Info`](crate::Info).
pub(crate) struct SenderInfo {
    pub(crate) counters: Counters,
    pub(crate) capacity: usize,
    pub(crate) largest: usize,
    pub(crate) backlog: usize,
    pub(crate) finishing: bool,
}

pub(crate) struct Sender<P> {
    // Before its backing, so that it is dropped first.
    producer: Producer,
    /// The sender of the message that is partly in the ring.
    current: Option<P>,
    /// Senders to wake when there is room, or when the message in progress is done.
    waiting: Vec<P>,
    /// No new messages; the end of data is declared when the one in progress is done.
    finishing: bool,
    spin: Spin,
    /// Bytes of the largest message so far.
    largest: u32,
    backing: Backing,
}

impl<P: Copy + PartialEq> Sender<P> {
    pub(crate) fn new(producer: Producer, pages: Arc<SharedPages>) -> Sender<P> {
        Sender {
            producer,
            current: None,
            waiting: Vec::new(),
            finishing: false,
            spin: Spin::new(),
            largest: 0,
            backing: Backing::Shared(pages),
        }
    }

    /// Puts a whole message into the ring without publishing it. `false`: nothing was done;
    /// [`send`](Self::send) does it or says why not.
    #[inline]
    fn put(&mut self, message: &[u8]) -> bool {
        let put = self.current.is_none()
            && self.waiting.is_empty()
            && !self.finishing
            && self.producer.put(message);
        if put {
            self.spin.moved(message.len() as u32);
            self.largest = self.largest.max(message.len() as u32);
        }
        put
    }

    /// The fast path: puts a short message into the ring and publishes it, if that is all there is
    /// to do.
    #[inline]
    pub(crate) fn put_one(&mut self, message: &[u8]) -> Put {
        match self.put(message) {
            false => Put::No,
            true => match self.producer.publish() {
                Ok(false) => Put::Done,
                Ok(true) => Put::Notify,
                // A violation is permanent: `send` reports it.
                Err(_) => Put::No,
            },
        }
    }

    /// Puts messages into the ring until there are no more, or one does not fit whole, or the
    /// limits of one call are reached. Returns how many are whole, and the outcome of the next one,
    /// which is `Whole` if there is none.
    pub(crate) fn send_many<'m>(
        &mut self,
        sender: P,
        messages: &mut impl Iterator<Item = &'m [u8]>,
        deferred: &mut Deferred<P>,
    ) -> (usize, Result<Sent, Fail>) {
        let (mut count, mut bytes) = (0, 0);
        let next = loop {
            if count >= MESSAGES_PER_CALL || bytes >= BYTES_PER_CALL {
                break Ok(Sent::More(0));
            }
            let Some(message) = messages.next() else {
                break Ok(Sent::Whole);
            };
            if !self.put(message) {
                match self.send(sender, &[message], 0, deferred) {
                    Ok(Sent::Whole) => {}
                    other => break other,
                }
            }
            count += 1;
            bytes += message.len();
        };
        // One fence for all of them.
        match self.producer.publish() {
            Ok(notify) => deferred.notify |= notify,
            Err(violation) => return (count, next.and(Err(violation.into()))),
        }
        (count, next)
    }

    /// Puts the next part of the message that `parts` make up into the ring, of which `done` bytes
    /// are there already.
    pub(crate) fn send<B: AsRef<[u8]>>(
        &mut self,
        sender: P,
        parts: &[B],
        done: u64,
        deferred: &mut Deferred<P>,
    ) -> Result<Sent, Fail> {
        // A sender that calls does not wait, and must not be woken later.
        if !self.waiting.is_empty() {
            self.waiting.retain(|waiting| *waiting != sender);
        }
        let ours = self.current == Some(sender);
        if ours != (done > 0) {
            return Err(LinkError::Invalid.into());
        }
        if !ours && self.finishing {
            return Err(LinkError::Closed.into());
        }
        // Queue behind waiting senders: small messages must not starve a larger one, and another
        // attempt could withdraw the event index that a waiting sender relies on.
        if !ours && (self.current.is_some() || !self.waiting.is_empty()) {
            self.waiting.push(sender);
            return Ok(Sent::Wait(0));
        }
        let done = u32::try_from(done).map_err(|_| LinkError::Invalid)?;
        let mut progress = Progress::at(done);
        let pushed = self.push(parts, &mut progress, deferred);
        self.update_senders(sender, done > 0, &pushed, deferred);
        pushed
    }

    fn push<B: AsRef<[u8]>>(
        &mut self,
        parts: &[B],
        progress: &mut Progress,
        deferred: &mut Deferred<P>,
    ) -> Result<Sent, Fail> {
        for _ in 0..TRIES_PER_CALL {
            match self.producer.push_parts(parts, progress, BYTES_PER_CALL)? {
                Push::Whole => {
                    self.spin.moved(progress.sent());
                    self.largest = self.largest.max(progress.sent());
                    deferred.notify |= self.producer.publish()?;
                    return Ok(Sent::Whole);
                }
                Push::Budget => {
                    deferred.notify |= self.producer.publish()?;
                    return Ok(Sent::More(progress.sent().into()));
                }
                Push::Full => {
                    if self.spin_for_room(deferred)? {
                        continue;
                    }
                    let armed = self.producer.arm()?;
                    deferred.notify |= armed.notify;
                    if !armed.ready {
                        return Ok(Sent::Wait(progress.sent().into()));
                    }
                }
                Push::TooLong { .. } => return Err(LinkError::TooLong.into()),
                Push::Gone | Push::Finished => return Err(LinkError::Closed.into()),
                // The message is this sender's, so it changed its length on the way.
                Push::Busy | Push::Aborted => return Err(LinkError::Invalid.into()),
            }
        }
        deferred.notify |= self.producer.publish()?;
        Ok(Sent::More(progress.sent().into()))
    }

    /// Spins for room mid-stream. Publishes everything first: the reader may be waiting for it.
    fn spin_for_room(&mut self, deferred: &mut Deferred<P>) -> Result<bool, Fail> {
        if !self.spin.is_due() {
            return Ok(false);
        }
        deferred.notify |= self.producer.publish()?;
        self.spin.until(deferred, || self.producer.has_room())
    }

    /// Updates the sender of the message in progress and the waiting senders.
    fn update_senders(
        &mut self,
        sender: P,
        begun: bool,
        pushed: &Result<Sent, Fail>,
        deferred: &mut Deferred<P>,
    ) {
        match pushed {
            Ok(Sent::Whole) if !begun => {}
            Ok(Sent::More(0)) => {}
            Ok(Sent::Wait(0)) => self.waiting.push(sender),
            Ok(Sent::More(_)) => self.current = Some(sender),
            Ok(Sent::Wait(_)) => {
                self.current = Some(sender);
                self.waiting.push(sender);
            }
            // A mistake of the sender: the message in progress goes on.
            Err(Fail::Refused(LinkError::Invalid)) => {}
            Ok(Sent::Whole) => self.complete(deferred),
            Err(_) => {
                if begun {
                    self.complete(deferred);
                }
            }
        }
    }

    /// The message in progress is complete or given up: wakes the other senders.
    fn complete(&mut self, deferred: &mut Deferred<P>) {
        self.current = None;
        deferred.senders.append(&mut self.waiting);
        if self.finishing {
            self.producer.finish();
            deferred.notify = true;
        }
    }

    /// Ends the sender's wait, and aborts its message if that is in progress.
    pub(crate) fn cancel(&mut self, sender: P, deferred: &mut Deferred<P>) -> Result<(), Fail> {
        self.waiting.retain(|waiting| *waiting != sender);
        if self.current == Some(sender) {
            self.producer.abort();
            // Even before its event index is reached: see `Producer::abort`.
            deferred.notify = true;
            _ = self.producer.publish()?;
            self.complete(deferred);
        }
        Ok(())
    }

    /// Wakes waiting senders if there is room for them.
    pub(crate) fn wake_if_room(&mut self, deferred: &mut Deferred<P>) -> Result<(), Fail> {
        // While a message is in progress, only its sender can use room.
        let place = match self.current {
            _ if self.waiting.is_empty() => return Ok(()),
            None => None,
            Some(current) => match self.waiting.iter().position(|one| *one == current) {
                None => return Ok(()),
                place => place,
            },
        };
        let armed = self.producer.arm()?;
        deferred.notify |= armed.notify;
        if armed.ready {
            match place {
                Some(place) => deferred.senders.push(self.waiting.remove(place)),
                None => deferred.senders.append(&mut self.waiting),
            }
        }
        Ok(())
    }

    /// Refuses new messages from here on.
    pub(crate) fn shutdown(&mut self, deferred: &mut Deferred<P>) {
        if self.finishing {
            return;
        }
        self.finishing = true;
        match self.current {
            None => self.complete(deferred),
            // Wake the others to find that they are too late.
            Some(current) => {
                let (own, others) = self.waiting.drain(..).partition(|one| *one == current);
                self.waiting = own;
                deferred.senders = others;
            }
        }
    }

    /// Wakes all waiting senders.
    pub(crate) fn wake_all(&mut self, deferred: &mut Deferred<P>) {
        deferred.senders.append(&mut self.waiting);
    }

    /// Leaves the shared pages. Nothing sent from here on is read.
    pub(crate) fn leave_pages(&mut self) {
        let producer = &mut self.producer;
        self.backing.leave(producer.capacity(), |control, area| {
            producer.move_to(control, area)
        });
    }

    /// Declares the end of data, after aborting a message in progress.
    pub(crate) fn end(&mut self, deferred: &mut Deferred<P>) {
        self.producer.finish();
        self.wake_all(deferred);
    }

    /// Spins for a shorter time from here on.
    pub(crate) fn shorten_spin(&mut self) {
        self.spin.shorten();
    }

    pub(crate) fn backing(&self) -> &Backing {
        &self.backing
    }

    pub(crate) fn info(&self) -> SenderInfo {
        SenderInfo {
            counters: self.producer.counters(),
            capacity: self.producer.capacity(),
            largest: self.largest as usize,
            backlog: self.producer.backlog(),
            finishing: self.finishing,
        }
    }
}
