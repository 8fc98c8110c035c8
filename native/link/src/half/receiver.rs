//! The receiving half: its owner, and how messages get to it.

use super::busy_poll::BusyPoll;
use super::{Deferred, Spin};
use crate::error::{Fail, LinkError};
use crate::limits::{BYTES_PER_CALL, MESSAGES_PER_CALL, RECORD_MAX};
use crate::memory::{Backing, SharedPages};
use crate::outcome::{Delivered, Gathered, Polled, Received};
use crate::status::End;
use crate::vm::{BatchSink, Buffer, Deliver, MessageSink, Vm};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tube_ring::{Consumer, Fragment, Pull, Sink};

pub(crate) struct Receiver<V: Vm> {
    // Before its backing, so that it is dropped first.
    consumer: Consumer,
    reassembly: Reassembly<V::Buffer>,
    owner: Option<V::Process>,
    active: Active,
    /// The owner is woken when there is data.
    waiting: bool,
    busy_poll: BusyPoll,
    /// The process that polls for an active owner and waits.
    poller: Option<V::Process>,
    /// An active owner has got the end message.
    ended: bool,
    spin: Spin,
    /// Bytes of the largest message so far.
    largest: usize,
    backing: Backing,
}

/// Active mode: whether messages are delivered to the owner without a receive call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Active {
    /// Never.
    Passive,
    /// Always.
    Always,
    /// The next message, with no report afterwards.
    Once,
    /// The next so many messages, with a report after the last. Never 0.
    Count(u32),
}

impl Active {
    /// Whether messages are delivered now.
    pub fn is_active(self) -> bool {
        self != Active::Passive
    }

    /// `self` set to `new`: counts add up, so that an owner can extend one in time.
    #[must_use]
    pub(crate) fn set(self, new: Active) -> Active {
        match (self, new) {
            (Active::Count(left), Active::Count(more)) => Active::Count(left.saturating_add(more)),
            (_, Active::Count(0)) => Active::Passive,
            _ => new,
        }
    }
}

/// The next message, or why there is none.
enum Next<B> {
    Small,
    Long(B),
    Budget,
    Empty,
    Finished,
}

impl<V: Vm> Receiver<V> {
    pub(crate) fn new(consumer: Consumer, pages: Arc<SharedPages>) -> Receiver<V> {
        // Half the ring less a header: what an honest sender puts into one record.
        let inline = (consumer.capacity() / 2 - 8).min(RECORD_MAX);
        Receiver {
            consumer,
            reassembly: Reassembly::new(inline),
            owner: None,
            active: Active::Passive,
            waiting: false,
            busy_poll: BusyPoll::default(),
            poller: None,
            ended: false,
            spin: Spin::new(),
            largest: 0,
            backing: Backing::Shared(pages),
        }
    }

    pub(crate) fn backing(&self) -> &Backing {
        &self.backing
    }

    pub(crate) fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    pub(crate) fn active(&self) -> Active {
        self.active
    }

    pub(crate) fn largest(&self) -> usize {
        self.largest
    }

    pub(crate) fn is_owner(&self, process: V::Process) -> bool {
        self.owner == Some(process)
    }

    /// Whether a process may busy-poll for an active owner.
    pub(crate) fn is_busy_polled(&self) -> bool {
        self.busy_poll.is_on()
    }

    pub(crate) fn start(&mut self, owner: V::Process) {
        self.owner = Some(owner);
    }

    /// Changes the owner. The wait of the old one ends.
    pub(crate) fn set_owner(&mut self, owner: V::Process, deferred: &mut Deferred<V::Process>) {
        self.wake_owner(deferred);
        self.busy_poll.cancel();
        self.owner = Some(owner);
    }

    /// Sets the active mode, for the owner or for the connection (`None`).
    pub(crate) fn set_active(
        &mut self,
        by: Option<V::Process>,
        active: Active,
    ) -> Result<(), Fail> {
        if by.is_some() && by != self.owner {
            return Err(LinkError::NotOwner.into());
        }
        self.active = self.active.set(active);
        self.waiting &= !self.active.is_active();
        Ok(())
    }

    /// Sets the longest time to busy-poll, and wakes the poller to start or stop.
    pub(crate) fn set_busy_poll(&mut self, most: Duration, deferred: &mut Deferred<V::Process>) {
        self.busy_poll.set(most);
        self.wake_poller(deferred);
    }

    /// Takes messages of up to `most` bytes from here on.
    pub(crate) fn restrict(&mut self, most: u32) {
        self.consumer.restrict(most);
    }

    /// Spins for a shorter time from here on.
    pub(crate) fn shorten_spin(&mut self) {
        self.spin.shorten();
    }

    /// Ends the owner's wait without waking it.
    pub(crate) fn cancel(&mut self, owner: V::Process) {
        if self.is_owner(owner) {
            self.waiting = false;
            self.busy_poll.cancel();
        }
    }

    /// One message for a passive owner.
    pub(crate) fn recv(
        &mut self,
        owner: V::Process,
        sink: &mut impl MessageSink,
        end: End,
        deferred: &mut Deferred<V::Process>,
    ) -> Result<Received<V::Buffer>, Fail> {
        self.check_caller(owner)?;
        let mut budget = BYTES_PER_CALL;
        loop {
            match self.next(sink, &mut budget, deferred)? {
                Next::Small => {
                    deferred.notify |= self.consumer.release_batch()?;
                    return Ok(Received::Small);
                }
                Next::Long(buffer) => {
                    deferred.notify |= self.consumer.release_batch()?;
                    return Ok(Received::Long(buffer));
                }
                Next::Budget => return Ok(Received::More),
                Next::Finished => return Err(end.finished.into()),
                Next::Empty => match self.wait(end, deferred)? {
                    Polled::Again => return Ok(Received::Poll),
                    Polled::Wait => return Ok(Received::Wait),
                    Polled::Ready => {}
                },
            }
            // A peer that writes one fragment at a time must not keep this call going.
            if budget == 0 {
                return Ok(Received::More);
            }
        }
    }

    /// As many messages for a passive owner as are there, up to `most` and the limits of one call.
    pub(crate) fn recv_many<S: BatchSink<V::Buffer>>(
        &mut self,
        owner: V::Process,
        most: usize,
        batch: &mut S,
        end: End,
        deferred: &mut Deferred<V::Process>,
    ) -> Result<Gathered, Fail> {
        self.check_caller(owner)?;
        let most = most.clamp(1, MESSAGES_PER_CALL);
        let mut budget = BYTES_PER_CALL;
        let mut taken = 0;
        while taken < most && budget > 0 {
            batch.expect(self.consumer.backlog());
            match self.next(batch, &mut budget, deferred) {
                Ok(Next::Small) => batch.small(),
                Ok(Next::Long(message)) => batch.long(message),
                Ok(Next::Budget) => break,
                // An end or a violation is permanent: the next call returns it.
                Ok(Next::Empty | Next::Finished) | Err(_) if taken > 0 => break,
                Ok(Next::Finished) => return Err(end.finished.into()),
                Ok(Next::Empty) => match self.wait(end, deferred)? {
                    Polled::Again => return Ok(Gathered::Poll),
                    Polled::Wait => return Ok(Gathered::Wait),
                    Polled::Ready => continue,
                },
                Err(fail) => return Err(fail),
            }
            taken += 1;
            self.release_batch(deferred);
        }
        self.release_batch(deferred);
        Ok(match taken {
            0 => Gathered::More,
            _ => Gathered::Messages(taken),
        })
    }

    /// Releases room now and then. A violation does not affect the messages already taken; the next
    /// call returns it.
    fn release_batch(&mut self, deferred: &mut Deferred<V::Process>) {
        deferred.notify |= self.consumer.release_batch().unwrap_or(false);
    }

    /// Fails unless `owner` may receive. Its earlier wait is over.
    fn check_caller(&mut self, owner: V::Process) -> Result<(), Fail> {
        if self.owner != Some(owner) {
            return Err(LinkError::NotOwner.into());
        }
        if self.active.is_active() {
            return Err(LinkError::Invalid.into());
        }
        self.waiting = false;
        Ok(())
    }

    /// Decides what a passive owner of an empty ring does: poll again, or wait, registered, unless
    /// data arrived meanwhile.
    fn wait(&mut self, end: End, deferred: &mut Deferred<V::Process>) -> Result<Polled, Fail> {
        if let Some(why) = end.gone {
            return Err(why.into());
        }
        if self.busy_poll.poll_again(Instant::now) {
            return Ok(Polled::Again);
        }
        if self.spin_for_data(deferred)? {
            return Ok(Polled::Ready);
        }
        let armed = self.arm(deferred)?;
        self.waiting = armed == Polled::Wait;
        Ok(armed)
    }

    /// Asks for a notification, unless there is something already.
    fn arm(&mut self, deferred: &mut Deferred<V::Process>) -> Result<Polled, Fail> {
        let armed = self.consumer.arm()?;
        deferred.notify |= armed.notify;
        Ok(match armed.ready {
            true => Polled::Ready,
            false => Polled::Wait,
        })
    }

    /// Spins for data mid-stream. Releases all room first: the sender may be waiting for it.
    fn spin_for_data(&mut self, deferred: &mut Deferred<V::Process>) -> Result<bool, Fail> {
        if !self.spin.is_due() {
            return Ok(false);
        }
        deferred.notify |= self.consumer.release()?;
        self.spin.until(deferred, || self.consumer.is_ready())
    }

    /// Decides what the process that polls for an active owner does.
    pub(crate) fn busy_poll(
        &mut self,
        poller: V::Process,
        deferred: &mut Deferred<V::Process>,
    ) -> Result<Polled, Fail> {
        self.poller = None;
        let polled = match self.active.is_active() && !self.ended && self.busy_poll.is_on() {
            false => Polled::Wait,
            true if self.consumer.is_ready()? => Polled::Ready,
            true => {
                let first = !self.busy_poll.is_polling();
                match self.busy_poll.poll_again(Instant::now) {
                    true => {
                        if first {
                            // The last delivery armed it, before anything polled.
                            self.consumer.disarm();
                        }
                        Polled::Again
                    }
                    false => self.arm(deferred)?,
                }
            }
        };
        if polled == Polled::Wait {
            self.poller = Some(poller);
        }
        Ok(polled)
    }

    /// Delivers messages to an active owner, within the limits of one call. `arm` asks for a
    /// notification when there are no more.
    pub(crate) fn deliver<D: Deliver<V>>(
        &mut self,
        target: &mut D,
        gone: bool,
        arm: bool,
        deferred: &mut Deferred<V::Process>,
    ) -> Result<Delivered, Fail> {
        let mut budget = BYTES_PER_CALL;
        for _ in 0..MESSAGES_PER_CALL {
            let Some(owner) = self.owner.filter(|_| self.active.is_active()) else {
                return Ok(Delivered::Passive);
            };
            let alive = match self.next(target, &mut budget, deferred)? {
                Next::Small => target.small(owner),
                Next::Long(message) => target.long(owner, message),
                Next::Budget => return Ok(Delivered::Budget),
                Next::Finished => return Ok(Delivered::End),
                Next::Empty if gone => return Ok(Delivered::End),
                Next::Empty if !arm => return Ok(Delivered::Empty),
                Next::Empty => {
                    if self.spin_for_data(deferred)? {
                        continue;
                    }
                    if self.arm(deferred)? == Polled::Ready {
                        continue;
                    }
                    return Ok(Delivered::Empty);
                }
            };
            deferred.notify |= self.consumer.release_batch()?;
            self.wake_poller(deferred);
            match self.active {
                // This message is lost with its owner; the rest stays for the next owner.
                _ if !alive => self.active = Active::Passive,
                Active::Once => self.active = Active::Passive,
                Active::Count(1) => {
                    self.active = Active::Passive;
                    target.passive(owner);
                }
                Active::Count(left) => self.active = Active::Count(left - 1),
                Active::Passive | Active::Always => {}
            }
            if budget == 0 {
                return Ok(Delivered::Budget);
            }
        }
        Ok(Delivered::Budget)
    }

    /// Delivers the end message to an active owner, once. Returns whether it did so now.
    pub(crate) fn deliver_end<D: Deliver<V>>(
        &mut self,
        target: &mut D,
        reason: Option<LinkError>,
    ) -> bool {
        let Some(owner) = self
            .owner
            .filter(|_| self.active.is_active() && !self.ended)
        else {
            return false;
        };
        self.ended = true;
        self.active = Active::Passive;
        target.end(owner, reason);
        true
    }

    /// The next message, or as much of it as the budget allows.
    fn next<S: MessageSink>(
        &mut self,
        sink: &mut S,
        budget: &mut usize,
        deferred: &mut Deferred<V::Process>,
    ) -> Result<Next<V::Buffer>, Fail> {
        loop {
            let mut adapter = SinkAdapter {
                reassembly: &mut self.reassembly,
                sink,
            };
            // Takes a whole record at once, whatever is left of the budget.
            let pulled = self
                .consumer
                .pull(&mut adapter, (*budget).max(RECORD_MAX))?;
            if self.reassembly.no_memory {
                return Err(Fail::Violated);
            }
            match pulled {
                Pull::Message(bytes) => {
                    self.largest = self.largest.max(bytes);
                    self.spin.moved(bytes as u32);
                    // Of a message in pieces, this is the last one; the others were counted.
                    self.busy_poll.data_arrived(Instant::now);
                    let last = match self.reassembly.buffer {
                        Some(_) => self.reassembly.piece,
                        None => bytes,
                    };
                    *budget = budget.saturating_sub(last.max(1));
                    return Ok(match self.reassembly.buffer.take() {
                        Some(buffer) => Next::Long(buffer),
                        None => Next::Small,
                    });
                }
                Pull::Partial(bytes) => {
                    self.busy_poll.data_arrived(Instant::now);
                    // Piece by piece, so that a sender that waits for room can go on meanwhile.
                    deferred.notify |= self.consumer.release_batch()?;
                    *budget = budget.saturating_sub(bytes);
                }
                Pull::Aborted => *budget = budget.saturating_sub(RECORD_MAX),
                Pull::Refused => return Err(LinkError::NoMemory.into()),
                Pull::Empty => return Ok(Next::Empty),
                Pull::Finished => return Ok(Next::Finished),
            }
            if *budget == 0 {
                return Ok(Next::Budget);
            }
        }
    }

    /// Wakes the waiting owner if there is data.
    pub(crate) fn wake_if_data(&mut self, deferred: &mut Deferred<V::Process>) -> Result<(), Fail> {
        if self.waiting && self.arm(deferred)? == Polled::Ready {
            self.wake_owner(deferred);
        }
        Ok(())
    }

    /// Wakes the owner if it waits.
    pub(crate) fn wake_owner(&mut self, deferred: &mut Deferred<V::Process>) {
        if std::mem::take(&mut self.waiting) {
            deferred.owner = self.owner;
        }
    }

    /// Wakes the poller if it waits.
    pub(crate) fn wake_poller(&mut self, deferred: &mut Deferred<V::Process>) {
        if let Some(poller) = self.poller.take() {
            deferred.poller = Some(poller);
        }
    }

    /// Whether the peer has declared the end of its data.
    pub(crate) fn peer_finished(&mut self) -> Result<bool, Fail> {
        Ok(self.consumer.peer_finished()?)
    }

    /// Whether everything known to be in the ring is taken.
    pub(crate) fn is_drained(&self) -> bool {
        self.consumer.backlog() == 0
    }

    /// Leaves the shared pages; unread data goes on from a copy.
    pub(crate) fn leave_pages(&mut self) {
        let consumer = &mut self.consumer;
        self.backing.leave(consumer.capacity(), |control, area| {
            consumer.move_to(control, area)
        });
    }

    /// Declares that nothing more will be read.
    pub(crate) fn end(&mut self) {
        self.consumer.leave();
    }
}

/// The message being pulled. One in a single piece goes straight to its destination, one in several
/// into a buffer.
struct Reassembly<B> {
    /// Messages up to this long are expected in one piece and need no buffer.
    inline: usize,
    buffer: Option<B>,
    total: usize,
    /// Bytes of the last piece.
    piece: usize,
    /// There was no memory for a short message in pieces. No honest peer sends one.
    no_memory: bool,
}

impl<B: Buffer> Reassembly<B> {
    fn new(inline: usize) -> Reassembly<B> {
        Reassembly {
            inline,
            buffer: None,
            total: 0,
            piece: 0,
            no_memory: false,
        }
    }

    fn make_room(&mut self) -> bool {
        self.buffer = B::new(self.total);
        self.buffer.is_some()
    }
}

/// A [`Reassembly`] as the sink of a ring.
struct SinkAdapter<'a, B, S> {
    reassembly: &'a mut Reassembly<B>,
    sink: &'a mut S,
}

impl<B: Buffer, S: MessageSink> Sink for SinkAdapter<'_, B, S> {
    #[inline]
    fn begin(&mut self, total: usize) -> bool {
        self.reassembly.total = total;
        if total <= self.reassembly.inline {
            self.sink.room(total)
        } else {
            self.reassembly.make_room()
        }
    }

    #[inline]
    fn put(&mut self, offset: usize, bytes: Fragment<'_>) {
        let reassembly = &mut *self.reassembly;
        if reassembly.buffer.is_none() {
            if bytes.len() == reassembly.total {
                return self.sink.take(bytes);
            }
            if reassembly.no_memory || !reassembly.make_room() {
                reassembly.no_memory = true;
                return;
            }
        }
        if let Some(buffer) = &mut reassembly.buffer {
            reassembly.piece = bytes.len();
            let room = &mut buffer.room()[offset..][..bytes.len()];
            bytes.copy_to(room);
        }
    }

    fn discard(&mut self) {
        self.reassembly.buffer = None;
    }
}

#[cfg(test)]
mod tests {
    use super::Active::{Always, Count, Once, Passive};

    #[test]
    fn counts_add_up_and_other_values_replace() {
        assert_eq!(Count(2).set(Count(3)), Count(5));
        assert_eq!(Count(u32::MAX).set(Count(3)), Count(u32::MAX));
        assert_eq!(Passive.set(Count(3)), Count(3));
        assert_eq!(Passive.set(Count(0)), Passive);
        assert_eq!(Always.set(Count(3)), Count(3));
        for active in [Passive, Always, Once, Count(1)] {
            for new in [Passive, Always, Once] {
                assert_eq!(active.set(new), new);
            }
        }
    }
}
