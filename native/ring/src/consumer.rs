//! The reading end of a ring.

use crate::counters::Counters;
use crate::layout::{
    CONSUMER, CONSUMER_COUNTERS, HEADER, HEADER_FIRST, INDEX, LIMIT, MARK, MESSAGE_MAX, PRODUCER,
    PRODUCER_COUNTERS, RECORD_ALIGN, STATE, STATE_FIN, STATE_GONE,
};
use crate::record::{Kind, parse};
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::announce_then_look;
use crate::wake::{Armed, Pending, nowhere_near, stride};
use crate::{ControlPage, DataArea, Sink, Violation};

/// What became of a [`Consumer::pull`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pull {
    /// The sink holds a whole message of so many bytes.
    Message(usize),
    /// So many bytes of a message, and more to come: call again.
    Partial(usize),
    /// The sender gave up a message begun; the sink was told.
    Aborted,
    /// The sink refused the next message, which stays in the ring.
    Refused,
    /// Nothing there; [`Consumer::arm`], then call again.
    Empty,
    /// Nothing there, and nothing will come.
    Finished,
}

/// The message in progress.
#[derive(Clone, Copy, Debug)]
struct Open {
    total: u32,
    got: u32,
}

/// The record in progress: its payload goes on at the consumer's index.
#[derive(Clone, Copy, Debug)]
struct Rest {
    left: u32,
    last: bool,
}

/// The reading end. Own indices are private; what lies in the page is only a copy for the peer.
#[derive(Debug)]
pub struct Consumer {
    control: ControlPage,
    data: DataArea,
    size: u32,
    /// Next byte to read. Aligned between records, not within one.
    index: u32,
    /// What the producer may overwrite ends here; at most one ring behind `index`, aligned.
    released: u32,
    /// The producer's index as last seen and checked; read again only when all up to it is read, so
    /// that its cache line is not fought over.
    seen: u32,
    /// Released and not yet compared with the producer's mark.
    pending: Pending,
    open: Option<Open>,
    rest: Option<Rest>,
    limit: u32,
    /// The last index, once the end of data was seen.
    end: Option<u32>,
    counters: Counters,
    fault: Option<Violation>,
}

impl Consumer {
    /// The reading end of the ring of `control` and `data`, which takes messages of up to
    /// `max_message` bytes (at least 1, at most [`MESSAGE_MAX`]) and tells the producer so. To be
    /// made after the page was initialised or checked, and before the peer is told that we are
    /// connected: its sender reads the limit.
    pub fn new(control: ControlPage, data: DataArea, max_message: u32) -> Self {
        Self::starting_at(control, data, max_message, 0)
    }

    /// The same with indices that start at `index`, for tests of wrap-around.
    #[doc(hidden)]
    pub fn starting_at(control: ControlPage, data: DataArea, max_message: u32, index: u32) -> Self {
        let size = data.size();
        // 0 stands for "not said yet" in the page.
        let limit = max_message.clamp(1, MESSAGE_MAX);
        control.store(CONSUMER + LIMIT, limit, Relaxed);
        Self {
            control,
            data,
            size,
            index,
            released: index,
            seen: index,
            pending: Pending::default(),
            open: None,
            rest: None,
            limit,
            end: None,
            counters: Counters::default(),
            fault: None,
        }
    }

    /// Takes the next record, or at most `budget` payload bytes of it, into `sink`.
    ///
    /// One call handles one record at most, whatever the producer does meanwhile, so a loop that
    /// counts its calls and the bytes is bounded. Room is not given back before
    /// [`release`](Self::release) or [`release_batch`](Self::release_batch).
    ///
    /// # Errors
    /// The producer wrote an impossible index, record, sequence of records or flag.
    #[inline]
    pub fn pull<S: Sink>(&mut self, sink: &mut S, budget: usize) -> Result<Pull, Violation> {
        self.sound()?;
        let rest = match self.rest {
            Some(rest) => rest,
            None => {
                if self.seen == self.index && !self.look()? {
                    return Ok(if self.end.is_some() {
                        Pull::Finished
                    } else {
                        Pull::Empty
                    });
                }
                match self.enter(sink)? {
                    Ok(rest) => rest,
                    Err(answer) => return Ok(answer),
                }
            }
        };
        self.take(rest, sink, budget)
    }

    /// Reads and checks the header at the index and makes its payload the record in progress, or
    /// says what the pull ends with.
    #[inline]
    fn enter<S: Sink>(&mut self, sink: &mut S) -> Result<Result<Rest, Pull>, Violation> {
        let (kind, length) = match parse(self.data.load_header(self.index)) {
            Ok(parsed) => parsed,
            Err(violation) => return self.fail(violation),
        };
        let head = if kind == Kind::First {
            HEADER_FIRST
        } else {
            HEADER
        };
        // A record is published whole, so all of it lies below the index seen, which is at most a
        // ring ahead. In u64, because the length may be anything.
        let published = self.seen.wrapping_sub(self.index);
        if u64::from(head) + u64::from(length).next_multiple_of(RECORD_ALIGN as u64)
            > u64::from(published)
        {
            return self.fail(Violation::Length(length));
        }
        match (kind, self.open) {
            (Kind::Whole, None) => {
                if length > self.limit {
                    return self.fail(Violation::TooLong(length));
                }
                if !sink.begin(length as usize) {
                    return Ok(Err(Pull::Refused));
                }
                self.open = Some(Open {
                    total: length,
                    got: 0,
                });
            }
            (Kind::First, None) => {
                let word = self.data.load_header(self.index.wrapping_add(HEADER));
                let total = match u32::try_from(word) {
                    Ok(total) => total,
                    Err(_) => return self.fail(Violation::Total(word)),
                };
                if length == 0 {
                    return self.fail(Violation::EmptyFragment);
                }
                if length >= total {
                    return self.fail(Violation::Total(word));
                }
                if total > self.limit {
                    return self.fail(Violation::TooLong(total));
                }
                if !sink.begin(total as usize) {
                    return Ok(Err(Pull::Refused));
                }
                self.open = Some(Open { total, got: 0 });
            }
            (Kind::More | Kind::Last, Some(open)) => {
                if length == 0 {
                    return self.fail(Violation::EmptyFragment);
                }
                let sum = u64::from(open.got) + u64::from(length);
                let fits = match kind {
                    Kind::Last => sum == u64::from(open.total),
                    _ => sum < u64::from(open.total),
                };
                if !fits {
                    return self.fail(Violation::Sum(sum));
                }
            }
            (Kind::Abort, Some(_)) => {
                if length != 0 {
                    return self.fail(Violation::Length(length));
                }
                self.index = self.index.wrapping_add(HEADER);
                self.open = None;
                sink.discard();
                return Ok(Err(Pull::Aborted));
            }
            (Kind::Whole | Kind::First, Some(_)) => return self.fail(Violation::NotEnded),
            (Kind::More | Kind::Last | Kind::Abort, None) => {
                return self.fail(Violation::NotBegun);
            }
        }
        self.index = self.index.wrapping_add(head);
        let rest = Rest {
            left: length,
            last: matches!(kind, Kind::Whole | Kind::Last),
        };
        self.rest = Some(rest);
        Ok(Ok(rest))
    }

    /// Copies up to `budget` bytes of the record in progress.
    #[inline]
    fn take<S: Sink>(
        &mut self,
        rest: Rest,
        sink: &mut S,
        budget: usize,
    ) -> Result<Pull, Violation> {
        let Some(open) = self.open else {
            unreachable!("a record with payload belongs to a message");
        };
        let length = rest.left.min(u32::try_from(budget).unwrap_or(u32::MAX));
        if length > 0 {
            sink.put(open.got as usize, self.data.fragment(self.index, length));
        }
        let left = rest.left - length;
        if left > 0 {
            self.index = self.index.wrapping_add(length);
            self.open = Some(Open {
                total: open.total,
                got: open.got + length,
            });
            self.rest = Some(Rest {
                left,
                last: rest.last,
            });
            return Ok(Pull::Partial(length as usize));
        }
        // Indices are aligned between records; the area starts aligned, so padding the index is
        // padding the record.
        self.index = self
            .index
            .wrapping_add(length)
            .wrapping_add(RECORD_ALIGN as u32 - 1)
            & !(RECORD_ALIGN as u32 - 1);
        self.rest = None;
        if rest.last {
            self.open = None;
            self.counters.messages += 1;
            self.counters.bytes += u64::from(open.total);
            return Ok(Pull::Message(open.total as usize));
        }
        self.open = Some(Open {
            total: open.total,
            got: open.got + length,
        });
        Ok(Pull::Partial(length as usize))
    }

    /// Gives everything read back to the producer. `true`: the producer sleeps and waits for this
    /// room, ring the bell. One call serves any number of pulls.
    ///
    /// # Errors
    /// The producer wrote an impossible mark.
    #[must_use = "`true` means that the producer sleeps and must be rung"]
    pub fn release(&mut self) -> Result<bool, Violation> {
        self.sound()?;
        if self.unreleased() == 0 && self.pending.is_empty() {
            return Ok(false);
        }
        let index = self.note_released();
        let control = &self.control;
        let mark = announce_then_look(
            || control.store(CONSUMER + INDEX, index, Release),
            || control.load(PRODUCER + MARK, Relaxed),
        );
        self.compare(mark)
    }

    /// [`release`](Self::release) if a quarter of the ring or 64 KiB has gathered, else nothing.
    /// Called after each pull, or few of them, it is all that a reader owes a waiting producer:
    /// what is held back is less than what any producer can wait for.
    ///
    /// # Errors
    /// As `release`.
    #[inline]
    #[must_use = "`true` means that the producer sleeps and must be rung"]
    pub fn release_batch(&mut self) -> Result<bool, Violation> {
        if self.unreleased() < stride(self.size) {
            return Ok(false);
        }
        self.release()
    }

    /// Announces a wait for the next record. Gives back as [`release`](Self::release) does, at the
    /// price of the same one fence. The end of data counts as something to do.
    ///
    /// # Errors
    /// The producer wrote an impossible index, mark or flag.
    pub fn arm(&mut self) -> Result<Armed, Violation> {
        self.sound()?;
        let index = self.note_released();
        // Reached by any record: `index` is where the next one starts when there is none yet.
        let mark = index.wrapping_add(RECORD_ALIGN as u32);
        let control = &self.control;
        let (theirs, state, seen) = announce_then_look(
            || {
                control.store(CONSUMER + INDEX, index, Release);
                control.store(CONSUMER + MARK, mark, Relaxed);
            },
            || {
                (
                    control.load(PRODUCER + MARK, Relaxed),
                    // Before the index: with FIN seen, the index is the last one.
                    control.load(PRODUCER + STATE, Acquire),
                    control.load(PRODUCER + INDEX, Acquire),
                )
            },
        );
        self.see(seen)?;
        self.see_state(state)?;
        let ready = self.seen != self.index || self.end.is_some();
        if ready {
            self.disarm();
        } else {
            self.counters.waits += 1;
        }
        let notify = self.compare(theirs)?;
        Ok(Armed { ready, notify })
    }

    /// Withdraws the mark of [`arm`](Self::arm): one bell less if it is still on its way.
    pub fn disarm(&mut self) {
        self.control
            .store(CONSUMER + MARK, nowhere_near(self.released), Relaxed);
    }

    /// Declares that nothing more will be read. Ring the bell in any case.
    pub fn leave(&mut self) {
        self.control.store(CONSUMER + STATE, STATE_GONE, Release);
        self.counters.publish(&self.control, CONSUMER_COUNTERS);
    }

    /// Whether the producer has declared the end of data; there may be data to pull before it.
    ///
    /// # Errors
    /// Unknown close flags, an impossible index.
    pub fn peer_finished(&mut self) -> Result<bool, Violation> {
        self.sound()?;
        if self.end.is_none() {
            let state = self.control.load(PRODUCER + STATE, Acquire);
            let seen = self.control.load(PRODUCER + INDEX, Acquire);
            self.see(seen)?;
            self.see_state(state)?;
        }
        Ok(self.end.is_some())
    }

    /// Largest message taken, in bytes.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> usize {
        self.size as usize
    }

    /// Whether a message has begun and is neither complete nor aborted.
    pub fn in_progress(&self) -> bool {
        self.open.is_some()
    }

    /// Bytes known to be in the ring and not read, headers included.
    pub fn backlog(&self) -> usize {
        self.seen.wrapping_sub(self.index) as usize
    }

    /// Own counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What the producer says that it has counted: to be shown, not relied on.
    pub fn peer_counters(&self) -> Counters {
        Counters::read(&self.control, PRODUCER_COUNTERS)
    }

    /// Looks for news of the producer; whether there is a record. Notes the end of data.
    fn look(&mut self) -> Result<bool, Violation> {
        let seen = self.control.load(PRODUCER + INDEX, Acquire);
        self.see(seen)?;
        if self.seen != self.index {
            return Ok(true);
        }
        self.peer_finished()?;
        if self.seen != self.index {
            return Ok(true);
        }
        if self.end.is_some() && self.open.is_some() {
            return self.fail(Violation::FinInMessage);
        }
        Ok(false)
    }

    /// Takes over a producer index that was loaded once.
    fn see(&mut self, seen: u32) -> Result<(), Violation> {
        if self.end.is_some_and(|end| seen != end) {
            return self.fail(Violation::AfterFin(seen));
        }
        // Not behind what was seen before, not more than a ring ahead of what was given back; both
        // distances are of at most a ring, so the comparison holds across 2^32.
        let ahead = seen.wrapping_sub(self.released);
        if ahead > self.size
            || ahead < self.seen.wrapping_sub(self.released)
            || !seen.is_multiple_of(RECORD_ALIGN as u32)
        {
            return self.fail(Violation::ProducerIndex(seen));
        }
        self.seen = seen;
        Ok(())
    }

    /// Takes over a producer state that was loaded *before* the index seen last.
    fn see_state(&mut self, state: u32) -> Result<(), Violation> {
        if state & !STATE_FIN != 0 {
            return self.fail(Violation::State(state));
        }
        if state & STATE_FIN != 0 && self.end.is_none() {
            self.end = Some(self.seen);
        }
        Ok(())
    }

    fn unreleased(&self) -> u32 {
        (self.index & !(RECORD_ALIGN as u32 - 1)).wrapping_sub(self.released)
    }

    /// Notes that the index, rounded down to alignment, is about to be stored in the page, and
    /// returns it.
    fn note_released(&mut self) -> u32 {
        let step = self.unreleased();
        self.pending.add(step);
        self.released = self.released.wrapping_add(step);
        self.released
    }

    /// Decides on the bell for what was given back, given the producer's mark.
    fn compare(&mut self, mark: u32) -> Result<bool, Violation> {
        if self.pending.is_empty() {
            return Ok(false);
        }
        let ring = match self.pending.reached(mark, self.released) {
            Ok(ring) => ring,
            Err(violation) => return self.fail(violation),
        };
        self.counters.bell(ring);
        self.counters.publish(&self.control, CONSUMER_COUNTERS);
        Ok(ring)
    }

    /// A violation is for ever: nothing of the page is believed after it.
    fn sound(&self) -> Result<(), Violation> {
        self.fault.map_or(Ok(()), Err)
    }

    #[cold]
    fn fail<T>(&mut self, violation: Violation) -> Result<T, Violation> {
        self.fault = Some(violation);
        Err(violation)
    }
}
