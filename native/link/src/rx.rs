//! The receiving half: its owner, and how messages get to it.

use crate::after::{After, Stop};
use crate::flow::{Gathered, Mode, Received, Refusal};
use crate::ground::Ground;
use crate::memory::Memory;
use crate::vm::{Buffer, Heap, Outlet, Small, Vm};
use std::sync::Arc;
use tube_ring::{Consumer, Fragment, Pull, Sink};

/// Most bytes taken in one call: some ten microseconds of copying.
const BUDGET: usize = 256 << 10;
/// Most messages delivered or gathered in one call; each costs the VM some hundred nanoseconds.
const MESSAGES: usize = 1024;
/// No record in one piece is longer than this, so that a pull with this budget takes any of them whole.
const PIECE: usize = 64 << 10;

pub(crate) struct Rx<V: Vm> {
    consumer: Consumer,
    assembly: Assembly<V::Buffer>,
    pub(crate) owner: Option<V::Process>,
    pub(crate) mode: Mode,
    /// The owner is to be told of data.
    pub(crate) waiting: bool,
    /// An active owner was told of the end.
    ended: bool,
    /// Bytes of the largest message so far.
    pub(crate) largest: usize,
    pub(crate) ground: Ground,
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

impl<V: Vm> Rx<V> {
    pub(crate) fn new(consumer: Consumer, memory: Arc<Memory>) -> Rx<V> {
        // Half the ring, less a header: what an honest sender puts into one record.
        let inline = (consumer.capacity() / 2 - 8).min(PIECE);
        Rx {
            consumer,
            assembly: Assembly::new(inline),
            owner: None,
            mode: Mode::Passive,
            waiting: false,
            ended: false,
            largest: 0,
            ground: Ground::Shared(memory),
        }
    }

    /// One message for a passive owner, or what there is instead.
    pub(crate) fn recv(
        &mut self,
        owner: V::Process,
        small: &mut impl Small,
        gone: Option<Refusal>,
        after: &mut After<V::Process>,
    ) -> Result<Received<V::Buffer>, Stop> {
        self.begin(owner)?;
        let mut budget = BUDGET;
        loop {
            match self.step(small, &mut budget)? {
                Step::Small => {
                    after.ring |= self.consumer.release_batch()?;
                    return Ok(Received::Small);
                }
                Step::Long(buffer) => {
                    after.ring |= self.consumer.release_batch()?;
                    return Ok(Received::Long(buffer));
                }
                Step::Budget => {
                    after.ring |= self.consumer.release_batch()?;
                    return Ok(Received::More);
                }
                Step::Finished => return Err(Refusal::Closed.into()),
                Step::Empty => match gone {
                    Some(why) => return Err(why.into()),
                    None if self.must_wait(after)? => return Ok(Received::Wait),
                    None => {}
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
    pub(crate) fn recv_many<H: Heap<V::Buffer>>(
        &mut self,
        owner: V::Process,
        most: usize,
        heap: &mut H,
        gone: Option<Refusal>,
        after: &mut After<V::Process>,
    ) -> Result<Gathered, Stop> {
        self.begin(owner)?;
        let most = most.clamp(1, MESSAGES);
        let mut budget = BUDGET;
        let mut taken = 0;
        while taken < most && budget > 0 {
            heap.expect(self.consumer.backlog());
            match self.step(heap, &mut budget) {
                Ok(Step::Small) => heap.small(),
                Ok(Step::Long(message)) => heap.long(message),
                Ok(Step::Budget) => break,
                // Neither an end nor a fault goes away: the next call meets it again.
                Ok(Step::Empty | Step::Finished) | Err(_) if taken > 0 => break,
                Ok(Step::Finished) => return Err(Refusal::Closed.into()),
                Ok(Step::Empty) => match gone {
                    Some(why) => return Err(why.into()),
                    None if self.must_wait(after)? => return Ok(Gathered::Wait),
                    None => continue,
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
    fn give_back(&mut self, after: &mut After<V::Process>) {
        after.ring |= self.consumer.release_batch().unwrap_or(false);
    }

    /// May `owner` ask for messages? Who asks does not wait.
    fn begin(&mut self, owner: V::Process) -> Result<(), Stop> {
        if self.owner != Some(owner) {
            return Err(Refusal::NotOwner.into());
        }
        if self.mode.is_active() {
            return Err(Refusal::Invalid.into());
        }
        self.waiting = false;
        Ok(())
    }

    /// Registers the owner of an empty ring, unless there is news by now.
    fn must_wait(&mut self, after: &mut After<V::Process>) -> Result<bool, Stop> {
        let armed = self.consumer.arm()?;
        after.ring |= armed.notify;
        self.waiting = !armed.ready;
        Ok(self.waiting)
    }

    /// Messages to an active owner, as many as it wants and the budget allows. `arm` asks for a bell when
    /// there are no more.
    pub(crate) fn deliver<O: Outlet<V>>(
        &mut self,
        outlet: &mut O,
        gone: bool,
        arm: bool,
        after: &mut After<V::Process>,
    ) -> Result<Delivered, Stop> {
        let mut budget = BUDGET;
        for _ in 0..MESSAGES {
            let Some(owner) = self.owner.filter(|_| self.mode.is_active()) else {
                return Ok(Delivered::Passive);
            };
            let alive = match self.step(outlet, &mut budget)? {
                Step::Small => outlet.small(owner),
                Step::Long(message) => outlet.long(owner, message),
                Step::Budget => {
                    after.ring |= self.consumer.release_batch()?;
                    return Ok(Delivered::Budget);
                }
                Step::Finished => return Ok(Delivered::End),
                Step::Empty if gone => return Ok(Delivered::End),
                Step::Empty if !arm => return Ok(Delivered::Empty),
                Step::Empty => {
                    let armed = self.consumer.arm()?;
                    after.ring |= armed.notify;
                    if armed.ready {
                        continue;
                    }
                    return Ok(Delivered::Empty);
                }
            };
            after.ring |= self.consumer.release_batch()?;
            match self.mode {
                // What was just taken is lost with its reader; the rest stays for whoever comes next.
                _ if !alive => self.mode = Mode::Passive,
                Mode::Once => self.mode = Mode::Passive,
                Mode::Count(1) => {
                    self.mode = Mode::Passive;
                    outlet.passive(owner);
                }
                Mode::Count(left) => self.mode = Mode::Count(left - 1),
                Mode::Passive | Mode::Always => {}
            }
            if budget == 0 {
                return Ok(Delivered::Budget);
            }
        }
        Ok(Delivered::Budget)
    }

    /// Tells an active owner, once, that all is delivered. Has it been told now?
    pub(crate) fn tell_end<O: Outlet<V>>(
        &mut self,
        outlet: &mut O,
        reason: Option<Refusal>,
    ) -> bool {
        let Some(owner) = self.owner.filter(|_| self.mode.is_active() && !self.ended) else {
            return false;
        };
        self.ended = true;
        self.mode = Mode::Passive;
        outlet.end(owner, reason);
        true
    }

    /// The next message, or as much of it as the budget allows.
    fn step<S: Small>(
        &mut self,
        small: &mut S,
        budget: &mut usize,
    ) -> Result<Step<V::Buffer>, Stop> {
        loop {
            let mut inlet = Inlet {
                assembly: &mut self.assembly,
                small,
            };
            // A whole record is taken at once whatever is left of the budget.
            let pulled = self.consumer.pull(&mut inlet, (*budget).max(PIECE))?;
            if self.assembly.short {
                return Err(Stop::Violated);
            }
            match pulled {
                Pull::Message(bytes) => {
                    self.largest = self.largest.max(bytes);
                    // Of a message in pieces this is the last piece; the others were counted.
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
                Pull::Partial(bytes) => *budget = budget.saturating_sub(bytes),
                Pull::Aborted => *budget = budget.saturating_sub(PIECE),
                Pull::Refused => return Err(Refusal::NoMemory.into()),
                Pull::Empty => return Ok(Step::Empty),
                Pull::Finished => return Ok(Step::Finished),
            }
            if *budget == 0 {
                return Ok(Step::Budget);
            }
        }
    }

    /// After a bell: is the registered owner to be told?
    pub(crate) fn data(&mut self, after: &mut After<V::Process>) -> Result<(), Stop> {
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
    pub(crate) fn wake(&mut self, after: &mut After<V::Process>) {
        if std::mem::take(&mut self.waiting) {
            after.owner = self.owner;
        }
    }

    /// Has the peer declared the end of its data?
    pub(crate) fn peer_finished(&mut self) -> Result<bool, Stop> {
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

/// Where the bytes of the message that is being pulled go.
struct Assembly<B> {
    /// Messages up to this long are expected in one piece and need no buffer.
    inline: usize,
    buffer: Option<B>,
    total: usize,
    /// Bytes put there last.
    piece: usize,
    /// There was no memory for a short message in pieces. No honest peer sends such.
    short: bool,
}

impl<B: Buffer> Assembly<B> {
    fn new(inline: usize) -> Assembly<B> {
        Assembly {
            inline,
            buffer: None,
            total: 0,
            piece: 0,
            short: false,
        }
    }

    fn make_room(&mut self) -> bool {
        self.buffer = B::new(self.total);
        self.buffer.is_some()
    }
}

struct Inlet<'a, B, S> {
    assembly: &'a mut Assembly<B>,
    small: &'a mut S,
}

impl<B: Buffer, S: Small> Sink for Inlet<'_, B, S> {
    #[inline]
    fn begin(&mut self, total: usize) -> bool {
        self.assembly.total = total;
        if total <= self.assembly.inline {
            self.small.room(total)
        } else {
            self.assembly.make_room()
        }
    }

    #[inline]
    fn put(&mut self, offset: usize, bytes: Fragment<'_>) {
        let assembly = &mut *self.assembly;
        if assembly.buffer.is_none() {
            if bytes.len() == assembly.total {
                return self.small.take(bytes);
            }
            if assembly.short || !assembly.make_room() {
                assembly.short = true;
                return;
            }
        }
        if let Some(buffer) = &mut assembly.buffer {
            assembly.piece = bytes.len();
            let room = &mut buffer.room()[offset..][..bytes.len()];
            bytes.copy_to(room);
        }
    }

    fn discard(&mut self) {
        self.assembly.buffer = None;
    }
}
