//! The receiving half: its owner, and how messages get to it.

use crate::after::{Deferred, Fail};
use crate::assembly::{Reassembly, SinkAdapter};
use crate::flow::{Active, Gathered, LinkError, Polled, Received};
use crate::ground::Backing;
use crate::linger::Spin;
use crate::memory::SharedPages;
use crate::poll::BusyPoll;
use crate::status::End;
use crate::vm::{BatchSink, Deliver, MessageSink, Vm};
use std::sync::Arc;
use std::time::Instant;
use tube_ring::{Consumer, Pull};

/// Most bytes taken in one call: some ten microseconds of copying.
const BUDGET: usize = 256 << 10;
/// Most messages delivered or gathered in one call; each costs the VM some hundred nanoseconds.
const MESSAGES: usize = 1024;
/// No record in one piece is longer than this, so that a pull with this budget takes any of them whole.
const PIECE: usize = 64 << 10;

pub(crate) struct Receiver<V: Vm> {
    pub(crate) consumer: Consumer,
    assembly: Reassembly<V::Buffer>,
    pub(crate) owner: Option<V::Process>,
    pub(crate) active: Active,
    /// The owner is to be told of data.
    pub(crate) waiting: bool,
    /// How long to look before a bell is asked for.
    pub(crate) poll: BusyPoll,
    /// Who looks for an active owner, and is to be told when that is worth while.
    poller: Option<V::Process>,
    /// An active owner was told of the end.
    ended: bool,
    pub(crate) linger: Spin,
    /// Bytes of the largest message so far.
    pub(crate) largest: usize,
    pub(crate) ground: Backing,
}

/// What ended a look into the ring.
enum Step<B> {
    Small,
    Long(B),
    Budget,
    Empty,
    Finished,
}

/// How a round of deliveries ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// The owner wants no more for now.
    Passive,
    /// The ring is empty. If that was asked for, the next record rings.
    Empty,
    /// The ring is empty, and nothing more will come.
    End,
    /// There is more, but this has taken long enough.
    Budget,
}

impl<V: Vm> Receiver<V> {
    pub(crate) fn new(consumer: Consumer, memory: Arc<SharedPages>) -> Receiver<V> {
        // Half the ring, less a header: what an honest sender puts into one record.
        let inline = (consumer.capacity() / 2 - 8).min(PIECE);
        Receiver {
            consumer,
            assembly: Reassembly::new(inline),
            owner: None,
            active: Active::Passive,
            waiting: false,
            poll: BusyPoll::default(),
            poller: None,
            ended: false,
            linger: Spin::new(),
            largest: 0,
            ground: Backing::Shared(memory),
        }
    }

    /// One message for a passive owner, or what there is instead.
    pub(crate) fn recv(
        &mut self,
        owner: V::Process,
        small: &mut impl MessageSink,
        end: End,
        after: &mut Deferred<V::Process>,
    ) -> Result<Received<V::Buffer>, Fail> {
        self.begin(owner)?;
        let mut budget = BUDGET;
        loop {
            match self.step(small, &mut budget, after)? {
                Step::Small => {
                    after.ring |= self.consumer.release_batch()?;
                    return Ok(Received::Small);
                }
                Step::Long(buffer) => {
                    after.ring |= self.consumer.release_batch()?;
                    return Ok(Received::Long(buffer));
                }
                Step::Budget => return Ok(Received::More),
                Step::Finished => return Err(end.finished.into()),
                Step::Empty => match self.idle(end, after)? {
                    Polled::Again => return Ok(Received::Poll),
                    Polled::Wait => return Ok(Received::Wait),
                    Polled::Ready => {}
                },
            }
            // A peer that writes one fragment at a time must not keep us here.
            if budget == 0 {
                return Ok(Received::More);
            }
        }
    }

    /// As many messages for a passive owner as are there, `most` and the budget allow, or what there is
    /// instead of the first.
    pub(crate) fn recv_many<H: BatchSink<V::Buffer>>(
        &mut self,
        owner: V::Process,
        most: usize,
        heap: &mut H,
        end: End,
        after: &mut Deferred<V::Process>,
    ) -> Result<Gathered, Fail> {
        self.begin(owner)?;
        let most = most.clamp(1, MESSAGES);
        let mut budget = BUDGET;
        let mut taken = 0;
        while taken < most && budget > 0 {
            heap.expect(self.consumer.backlog());
            match self.step(heap, &mut budget, after) {
                Ok(Step::Small) => heap.small(),
                Ok(Step::Long(message)) => heap.long(message),
                Ok(Step::Budget) => break,
                // Neither an end nor a fault goes away: the next call meets it again.
                Ok(Step::Empty | Step::Finished) | Err(_) if taken > 0 => break,
                Ok(Step::Finished) => return Err(end.finished.into()),
                Ok(Step::Empty) => match self.idle(end, after)? {
                    Polled::Again => return Ok(Gathered::Poll),
                    Polled::Wait => return Ok(Gathered::Wait),
                    Polled::Ready => continue,
                },
                Err(stop) => return Err(stop),
            }
            taken += 1;
            self.give_back(after);
        }
        self.give_back(after);
        Ok(match taken {
            0 => Gathered::More,
            _ => Gathered::Messages(taken),
        })
    }

    /// Gives room back now and then. What was taken is good whatever the peer wrote besides, and a fault
    /// stays until the next call.
    fn give_back(&mut self, after: &mut Deferred<V::Process>) {
        after.ring |= self.consumer.release_batch().unwrap_or(false);
    }

    /// May `owner` ask for messages? Who asks does not wait.
    fn begin(&mut self, owner: V::Process) -> Result<(), Fail> {
        if self.owner != Some(owner) {
            return Err(LinkError::NotOwner.into());
        }
        if self.active.is_active() {
            return Err(LinkError::Invalid.into());
        }
        self.waiting = false;
        Ok(())
    }

    /// What the owner of an empty ring does: look again, or wait, registered, unless there is news by now.
    fn idle(&mut self, end: End, after: &mut Deferred<V::Process>) -> Result<Polled, Fail> {
        if let Some(why) = end.gone {
            return Err(why.into());
        }
        if self.poll.look_again(Instant::now) {
            return Ok(Polled::Again);
        }
        if self.is_more_coming(after)? {
            return Ok(Polled::Ready);
        }
        let armed = self.consumer.arm()?;
        after.ring |= armed.notify;
        self.waiting = !armed.ready;
        Ok(if armed.ready {
            Polled::Ready
        } else {
            Polled::Wait
        })
    }

    /// Whether the ring is empty for a moment only, in the middle of a stream. The sender gets all room back
    /// first: it may want it.
    fn is_more_coming(&mut self, after: &mut Deferred<V::Process>) -> Result<bool, Fail> {
        if !self.linger.is_due() {
            return Ok(false);
        }
        after.ring |= self.consumer.release()?;
        self.linger.look(after, || self.consumer.is_ready())
    }

    /// What who polls for an active owner does.
    pub(crate) fn look(
        &mut self,
        poller: V::Process,
        after: &mut Deferred<V::Process>,
    ) -> Result<Polled, Fail> {
        self.poller = None;
        let look = match self.active.is_active() && !self.ended && self.poll.is_on() {
            false => Polled::Wait,
            true if self.consumer.is_ready()? => Polled::Ready,
            true => {
                let began = !self.poll.is_awake();
                match self.poll.look_again(Instant::now) {
                    true => {
                        if began {
                            // Asked for by the last delivery, before there was somebody to look.
                            self.consumer.disarm();
                        }
                        Polled::Again
                    }
                    false => {
                        let armed = self.consumer.arm()?;
                        after.ring |= armed.notify;
                        if armed.ready {
                            Polled::Ready
                        } else {
                            Polled::Wait
                        }
                    }
                }
            }
        };
        if look == Polled::Wait {
            self.poller = Some(poller);
        }
        Ok(look)
    }

    /// Messages to an active owner, as many as it wants and the budget allows. `arm` asks for a bell when
    /// there are no more.
    pub(crate) fn deliver<O: Deliver<V>>(
        &mut self,
        outlet: &mut O,
        gone: bool,
        arm: bool,
        after: &mut Deferred<V::Process>,
    ) -> Result<Delivered, Fail> {
        let mut budget = BUDGET;
        for _ in 0..MESSAGES {
            let Some(owner) = self.owner.filter(|_| self.active.is_active()) else {
                return Ok(Delivered::Passive);
            };
            let alive = match self.step(outlet, &mut budget, after)? {
                Step::Small => outlet.small(owner),
                Step::Long(message) => outlet.long(owner, message),
                Step::Budget => return Ok(Delivered::Budget),
                Step::Finished => return Ok(Delivered::End),
                Step::Empty if gone => return Ok(Delivered::End),
                Step::Empty if !arm => return Ok(Delivered::Empty),
                Step::Empty => {
                    if self.is_more_coming(after)? {
                        continue;
                    }
                    let armed = self.consumer.arm()?;
                    after.ring |= armed.notify;
                    if armed.ready {
                        continue;
                    }
                    return Ok(Delivered::Empty);
                }
            };
            after.ring |= self.consumer.release_batch()?;
            self.wake_poller(after);
            match self.active {
                // What was just taken is lost with its reader; the rest stays for whoever comes next.
                _ if !alive => self.active = Active::Passive,
                Active::Once => self.active = Active::Passive,
                Active::Count(1) => {
                    self.active = Active::Passive;
                    outlet.passive(owner);
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

    /// Tells an active owner, once, that all is delivered. Has it been told now?
    pub(crate) fn tell_end<O: Deliver<V>>(
        &mut self,
        outlet: &mut O,
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
        outlet.end(owner, reason);
        true
    }

    /// The next message, or as much of it as the budget allows.
    fn step<S: MessageSink>(
        &mut self,
        small: &mut S,
        budget: &mut usize,
        after: &mut Deferred<V::Process>,
    ) -> Result<Step<V::Buffer>, Fail> {
        loop {
            let mut inlet = SinkAdapter {
                assembly: &mut self.assembly,
                small,
            };
            // A whole record is taken at once whatever is left of the budget.
            let pulled = self.consumer.pull(&mut inlet, (*budget).max(PIECE))?;
            if self.assembly.short {
                return Err(Fail::Violated);
            }
            match pulled {
                Pull::Message(bytes) => {
                    self.largest = self.largest.max(bytes);
                    self.linger.moved(bytes as u32);
                    // Of a message in pieces this is the last piece; the others were counted.
                    self.poll.over(Instant::now);
                    let last = match self.assembly.buffer {
                        Some(_) => self.assembly.piece,
                        None => bytes,
                    };
                    *budget = budget.saturating_sub(last.max(1));
                    return Ok(match self.assembly.buffer.take() {
                        Some(buffer) => Step::Long(buffer),
                        None => Step::Small,
                    });
                }
                Pull::Partial(bytes) => {
                    self.poll.over(Instant::now);
                    // Piece by piece, so that a sender that waits for room goes on while we do.
                    after.ring |= self.consumer.release_batch()?;
                    *budget = budget.saturating_sub(bytes);
                }
                Pull::Aborted => *budget = budget.saturating_sub(PIECE),
                Pull::Refused => return Err(LinkError::NoMemory.into()),
                Pull::Empty => return Ok(Step::Empty),
                Pull::Finished => return Ok(Step::Finished),
            }
            if *budget == 0 {
                return Ok(Step::Budget);
            }
        }
    }

    /// Deferred a bell: is the registered owner to be told?
    pub(crate) fn data(&mut self, after: &mut Deferred<V::Process>) -> Result<(), Fail> {
        if self.waiting {
            let armed = self.consumer.arm()?;
            after.ring |= armed.notify;
            if armed.ready {
                self.wake(after);
            }
        }
        Ok(())
    }

    /// Ends the owner's wait, if it waits.
    pub(crate) fn wake(&mut self, after: &mut Deferred<V::Process>) {
        if std::mem::take(&mut self.waiting) {
            after.owner = self.owner;
        }
    }

    /// Has whoever polls look again.
    pub(crate) fn wake_poller(&mut self, after: &mut Deferred<V::Process>) {
        if let Some(poller) = self.poller.take() {
            after.poller = Some(poller);
        }
    }

    /// Has the peer declared the end of its data?
    pub(crate) fn peer_finished(&mut self) -> Result<bool, Fail> {
        Ok(self.consumer.peer_finished()?)
    }

    /// Is everything taken that is known to be there?
    pub(crate) fn is_drained(&self) -> bool {
        self.consumer.backlog() == 0
    }

    /// Lets go of the shared pages; what is unread goes on from a copy.
    pub(crate) fn leave_pages(&mut self) {
        let consumer = &mut self.consumer;
        self.ground.leave(consumer.capacity(), |control, area| {
            consumer.move_to(control, area)
        });
    }

    /// Declares that nothing more will be read.
    pub(crate) fn end(&mut self) {
        self.consumer.leave();
    }

    pub(crate) fn consumer(&self) -> &Consumer {
        &self.consumer
    }
}
