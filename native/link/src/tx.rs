//! The sending half: one message in progress at a time, and the senders that wait.

use crate::after::{Deferred, Fail};
use crate::flow::{LinkError, Sent};
use crate::ground::Backing;
use crate::linger::Spin;
use crate::memory::SharedPages;
use std::sync::Arc;
use tube_ring::{Producer, Progress, Push};

/// Most bytes copied in one call: some ten microseconds of work.
const BUDGET: usize = 256 << 10;
/// Most messages taken in one call, each some ten nanoseconds of work beside its bytes.
const MESSAGES: usize = 1024;
/// How often one call tries again when room appears while it registers, before it lets its caller do so.
const TRIES: usize = 4;

/// What became of a message that was tried the short way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is in the ring.
    Done,
    /// It is in the ring, and the peer is to be rung.
    Ring,
    /// This way was not open.
    No,
}

pub(crate) struct Sender<P> {
    producer: Producer,
    /// The sender of the message that is partly in the ring.
    current: Option<P>,
    /// Senders to be told when there is room, or when the message in progress is done.
    waiting: Vec<P>,
    /// No new messages; the end of data is declared when the one in progress is done.
    finishing: bool,
    pub(crate) linger: Spin,
    /// Bytes of the largest message so far.
    pub(crate) largest: u32,
    pub(crate) ground: Backing,
}

impl<P: Copy + PartialEq> Sender<P> {
    pub(crate) fn new(producer: Producer, memory: Arc<SharedPages>) -> Sender<P> {
        Sender {
            producer,
            current: None,
            waiting: Vec::new(),
            finishing: false,
            linger: Spin::new(),
            largest: 0,
            ground: Backing::Shared(memory),
        }
    }

    /// Puts a whole message into the ring, not yet published. False: nothing was done, and [`send`](Self::send)
    /// says why or does it.
    #[inline]
    fn put(&mut self, message: &[u8]) -> bool {
        let put = self.current.is_none()
            && self.waiting.is_empty()
            && !self.finishing
            && self.producer.put(message);
        if put {
            self.linger.moved(message.len() as u32);
            self.largest = self.largest.max(message.len() as u32);
        }
        put
    }

    /// Puts a short message into the ring, if that is all there is to do, and says whether to ring.
    #[inline]
    pub(crate) fn put_one(&mut self, message: &[u8]) -> Put {
        match self.put(message) {
            false => Put::No,
            true => match self.producer.publish() {
                Ok(false) => Put::Done,
                Ok(true) => Put::Ring,
                // There for good: `send` meets it too.
                Err(_) => Put::No,
            },
        }
    }

    /// Puts messages into the ring until there are no more, or one is not whole at once, or the bound of
    /// one call is met: how many are whole, and what became of the next one, where no next one is `Whole`.
    pub(crate) fn send_many<'m>(
        &mut self,
        sender: P,
        messages: &mut impl Iterator<Item = &'m [u8]>,
        after: &mut Deferred<P>,
    ) -> (usize, Result<Sent, Fail>) {
        let (mut count, mut bytes) = (0, 0);
        let next = loop {
            if count >= MESSAGES || bytes >= BUDGET {
                break Ok(Sent::More(0));
            }
            let Some(message) = messages.next() else {
                break Ok(Sent::Whole);
            };
            if !self.put(message) {
                match self.send(sender, &[message], 0, after) {
                    Ok(Sent::Whole) => {}
                    other => break other,
                }
            }
            count += 1;
            bytes += message.len();
        };
        // One look at the mark for all of them.
        match self.producer.publish() {
            Ok(ring) => after.ring |= ring,
            Err(violation) => return (count, next.and(Err(violation.into()))),
        }
        (count, next)
    }

    /// Puts the next part of the message that `parts` make up into the ring, of which `done` bytes are there.
    pub(crate) fn send<B: AsRef<[u8]>>(
        &mut self,
        sender: P,
        parts: &[B],
        done: u64,
        after: &mut Deferred<P>,
    ) -> Result<Sent, Fail> {
        // Who calls does not wait, told or not: it must not be told later of a call long over.
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
        // Also behind others who wait: small messages must not slip past a larger one for ever. And whoever
        // waits relies on the mark that was set for it, which another's attempt could withdraw.
        if !ours && (self.current.is_some() || !self.waiting.is_empty()) {
            self.waiting.push(sender);
            return Ok(Sent::Wait(0));
        }
        let done = u32::try_from(done).map_err(|_| LinkError::Invalid)?;
        let mut progress = Progress::at(done);
        let pushed = self.push(parts, &mut progress, after);
        self.follow(sender, done > 0, &pushed, after);
        pushed
    }

    fn push<B: AsRef<[u8]>>(
        &mut self,
        parts: &[B],
        progress: &mut Progress,
        after: &mut Deferred<P>,
    ) -> Result<Sent, Fail> {
        for _ in 0..TRIES {
            match self.producer.push_parts(parts, progress, BUDGET)? {
                Push::Whole => {
                    self.linger.moved(progress.sent());
                    self.largest = self.largest.max(progress.sent());
                    after.ring |= self.producer.publish()?;
                    return Ok(Sent::Whole);
                }
                Push::Budget => {
                    after.ring |= self.producer.publish()?;
                    return Ok(Sent::More(progress.sent().into()));
                }
                Push::Full => {
                    if self.is_room_coming(after)? {
                        continue;
                    }
                    let armed = self.producer.arm()?;
                    after.ring |= armed.notify;
                    if !armed.ready {
                        return Ok(Sent::Wait(progress.sent().into()));
                    }
                }
                Push::TooLong { .. } => return Err(LinkError::TooLong.into()),
                Push::Gone | Push::Finished => return Err(LinkError::Closed.into()),
                // Whose message it is was settled before: this one changed its length on the way.
                Push::Busy | Push::Aborted => return Err(LinkError::Invalid.into()),
            }
        }
        after.ring |= self.producer.publish()?;
        Ok(Sent::More(progress.sent().into()))
    }

    /// Whether the ring is full for a moment only, in the middle of a stream. The reader gets to know of all
    /// that is there first: it may want it.
    fn is_room_coming(&mut self, after: &mut Deferred<P>) -> Result<bool, Fail> {
        if !self.linger.is_due() {
            return Ok(false);
        }
        after.ring |= self.producer.publish()?;
        self.linger.look(after, || self.producer.has_room())
    }

    /// Keeps account of whose message is in progress and who waits.
    fn follow(
        &mut self,
        sender: P,
        begun: bool,
        pushed: &Result<Sent, Fail>,
        after: &mut Deferred<P>,
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
            // The message may go on all the same: only its sender got something wrong.
            Err(Fail::Refused(LinkError::Invalid)) => {}
            Ok(Sent::Whole) => self.done(after),
            Err(_) => {
                if begun {
                    self.done(after);
                }
            }
        }
    }

    /// The message in progress is complete or given up: the others' turn.
    fn done(&mut self, after: &mut Deferred<P>) {
        self.current = None;
        after.senders.append(&mut self.waiting);
        if self.finishing {
            self.producer.finish();
            after.ring = true;
        }
    }

    /// The sender waits no longer, and if its message was in progress, it ends here.
    pub(crate) fn cancel(&mut self, sender: P, after: &mut Deferred<P>) -> Result<(), Fail> {
        self.waiting.retain(|waiting| *waiting != sender);
        if self.current == Some(sender) {
            self.producer.abort();
            // Whether or not its mark is met: see `Producer::abort`.
            after.ring = true;
            _ = self.producer.publish()?;
            self.done(after);
        }
        Ok(())
    }

    /// Deferred a bell: is there room for those who wait for it?
    pub(crate) fn space(&mut self, after: &mut Deferred<P>) -> Result<(), Fail> {
        // While a message is in progress only its sender can use room.
        let place = match self.current {
            _ if self.waiting.is_empty() => return Ok(()),
            None => None,
            Some(current) => match self.waiting.iter().position(|one| *one == current) {
                None => return Ok(()),
                place => place,
            },
        };
        let armed = self.producer.arm()?;
        after.ring |= armed.notify;
        if armed.ready {
            match place {
                Some(place) => after.senders.push(self.waiting.remove(place)),
                None => after.senders.append(&mut self.waiting),
            }
        }
        Ok(())
    }

    /// No new message from here on.
    pub(crate) fn shutdown(&mut self, after: &mut Deferred<P>) {
        if self.finishing {
            return;
        }
        self.finishing = true;
        match self.current {
            None => self.done(after),
            // The others will find that they came too late.
            Some(current) => {
                let (own, others) = self.waiting.drain(..).partition(|one| *one == current);
                self.waiting = own;
                after.senders = others;
            }
        }
    }

    /// Everybody who waits shall come and see.
    pub(crate) fn wake_all(&mut self, after: &mut Deferred<P>) {
        after.senders.append(&mut self.waiting);
    }

    /// Lets go of the shared pages. NullDeliver reads what is sent from here on.
    pub(crate) fn leave_pages(&mut self) {
        let producer = &mut self.producer;
        self.ground.leave(producer.capacity(), |control, area| {
            producer.move_to(control, area)
        });
    }

    /// Declares the end of data, for good. A message in progress is ended before.
    pub(crate) fn end(&mut self, after: &mut Deferred<P>) {
        self.producer.finish();
        self.wake_all(after);
    }

    pub(crate) fn producer(&self) -> &Producer {
        &self.producer
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.finishing
    }
}
