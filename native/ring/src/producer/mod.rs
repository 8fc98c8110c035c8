//! The writing end of a ring: what it knows, publishing, sleeping, the end. Writing is in `push`.

mod push;
mod put;

use crate::counters::Counters;
use crate::layout::{
    CONSUMER, CONSUMER_COUNTERS, INDEX, LIMIT, MARK, MESSAGE_MAX, PRODUCER, PRODUCER_COUNTERS,
    RECORD_ALIGN, STATE, STATE_FIN, STATE_GONE,
};
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::announce_then_look;
use crate::wake::{Armed, Pending, nowhere_near};
use crate::{ControlPage, DataArea, Violation};

pub use push::{Progress, Push};

/// The message in progress.
#[derive(Clone, Copy, Debug)]
struct Open {
    total: u32,
    sent: u32,
}

/// The writing end. Own indices are private; what lies in the page is only a copy for the peer.
#[derive(Debug)]
pub struct Producer {
    control: ControlPage,
    data: DataArea,
    size: u32,
    /// End of what is written.
    index: u32,
    /// End of what the consumer can see; at most one ring behind `index`.
    published: u32,
    /// The consumer's index as last seen and checked; read again only when room runs out, so that
    /// its cache line is not fought over.
    consumed: u32,
    /// Published and not yet compared with the consumer's mark.
    pending: Pending,
    /// Room that the last [`Push::Full`] lacked.
    wanted: u32,
    open: Option<Open>,
    /// The consumer's limit once it has been read.
    limit: Option<u32>,
    gone: bool,
    finished: bool,
    counters: Counters,
    fault: Option<Violation>,
}

impl Producer {
    /// The writing end of the ring of `control` and `data`.
    pub fn new(control: ControlPage, data: DataArea) -> Self {
        Self::starting_at(control, data, 0)
    }

    /// The same with indices that start at `index`, for tests of wrap-around.
    #[doc(hidden)]
    pub fn starting_at(control: ControlPage, data: DataArea, index: u32) -> Self {
        let size = data.size();
        Self {
            control,
            data,
            size,
            index,
            published: index,
            consumed: index,
            pending: Pending::default(),
            wanted: RECORD_ALIGN as u32,
            open: None,
            limit: None,
            gone: false,
            finished: false,
            counters: Counters::default(),
            fault: None,
        }
    }

    /// Makes everything written visible. `true`: the consumer sleeps and waits for this, ring the
    /// bell. One call serves any number of pushes.
    ///
    /// # Errors
    /// The consumer wrote an impossible mark.
    #[must_use = "`true` means that the consumer sleeps and must be rung"]
    #[inline]
    pub fn publish(&mut self) -> Result<bool, Violation> {
        self.sound()?;
        if self.index == self.published && self.pending.is_empty() {
            return Ok(false);
        }
        let index = self.note_published();
        let control = &self.control;
        let mark = announce_then_look(
            || control.store(PRODUCER + INDEX, index, Release),
            || control.load(CONSUMER + MARK, Relaxed),
        );
        self.compare(mark)
    }

    /// Whether a push that met [`Push::Full`] would get on now. Asks for no bell.
    ///
    /// # Errors
    /// As [`arm`](Self::arm), as far as the page's words show it.
    pub fn has_room(&mut self) -> Result<bool, Violation> {
        self.sound()?;
        let consumed = self.control.load(CONSUMER + INDEX, Acquire);
        let state = self.control.load(CONSUMER + STATE, Acquire);
        self.see(consumed)?;
        self.see_state(state)?;
        Ok(self.gone || self.free() >= self.wanted)
    }

    /// Announces a wait for room: for what the last [`Push::Full`] lacked, or half the ring if that
    /// is more, so that a bulk writer is not woken for each record that is read. Publishes as
    /// [`publish`](Self::publish) does, at the price of the same one fence.
    ///
    /// # Errors
    /// The consumer wrote an impossible index, mark or flag.
    pub fn arm(&mut self) -> Result<Armed, Violation> {
        self.sound()?;
        let index = self.note_published();
        let mark = index
            .wrapping_add(self.wanted.max(self.size / 2))
            .wrapping_sub(self.size);
        let control = &self.control;
        let (theirs, consumed, state) = announce_then_look(
            || {
                control.store(PRODUCER + INDEX, index, Release);
                control.store(PRODUCER + MARK, mark, Relaxed);
            },
            || {
                (
                    control.load(CONSUMER + MARK, Relaxed),
                    control.load(CONSUMER + INDEX, Acquire),
                    control.load(CONSUMER + STATE, Acquire),
                )
            },
        );
        self.see(consumed)?;
        self.see_state(state)?;
        let ready = self.gone || self.free() >= self.wanted;
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
            .store(PRODUCER + MARK, nowhere_near(self.published), Relaxed);
    }

    /// Declares the end of data, after ending a message in progress. Ring the bell in any case.
    pub fn finish(&mut self) {
        if self.finished || self.fault.is_some() {
            return;
        }
        self.abort();
        self.finished = true;
        let index = self.note_published();
        self.control.store(PRODUCER + INDEX, index, Release);
        // Released after the index: a reader that sees the flag sees the last index.
        self.control.store(PRODUCER + STATE, STATE_FIN, Release);
        self.counters.publish(&self.control, PRODUCER_COUNTERS);
    }

    /// Goes on in pages of our own, zeroed and as many, so that the shared ones may go. Nobody reads
    /// there, as after a reader that has left; what was not read stays behind.
    ///
    /// # Panics
    /// If the ring is of another size.
    pub fn move_to(&mut self, control: ControlPage, data: DataArea) {
        assert_eq!(data.size(), self.size, "a ring moves to one of its size");
        control.store(CONSUMER + INDEX, self.consumed, Relaxed);
        control.store(CONSUMER + MARK, nowhere_near(self.published), Relaxed);
        control.store(CONSUMER + STATE, STATE_GONE, Relaxed);
        control.store(CONSUMER + LIMIT, self.limit.unwrap_or(0), Relaxed);
        self.peer_counters().publish(&control, CONSUMER_COUNTERS);
        self.control = control;
        self.data = data;
    }

    /// Whether the reader has declared that it reads no more.
    ///
    /// # Errors
    /// Unknown close flags.
    pub fn peer_gone(&mut self) -> Result<bool, Violation> {
        self.sound()?;
        let state = self.control.load(CONSUMER + STATE, Acquire);
        self.see_state(state)?;
        Ok(self.gone)
    }

    /// Largest message that the receiver takes, in bytes: [`MESSAGE_MAX`] as long as it has not
    /// said so.
    ///
    /// # Errors
    /// An impossible limit.
    pub fn limit(&mut self) -> Result<u32, Violation> {
        self.sound()?;
        if let Some(limit) = self.limit {
            return Ok(limit);
        }
        let limit = self.control.load(CONSUMER + LIMIT, Relaxed);
        if limit > MESSAGE_MAX {
            return self.fail(Violation::Limit(limit));
        }
        if limit == 0 {
            return Ok(MESSAGE_MAX);
        }
        self.limit = Some(limit);
        Ok(limit)
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> usize {
        self.size as usize
    }

    /// Whether a message has begun and is neither complete nor aborted.
    pub fn in_progress(&self) -> bool {
        self.open.is_some()
    }

    /// Bytes of the ring that the consumer has not yet given back, headers included, as last seen.
    pub fn backlog(&self) -> usize {
        (self.size - self.free()) as usize
    }

    /// Own counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What the consumer says that it has counted: to be shown, not relied on.
    pub fn peer_counters(&self) -> Counters {
        Counters::read(&self.control, CONSUMER_COUNTERS)
    }

    #[inline]
    fn free(&self) -> u32 {
        self.size - self.index.wrapping_sub(self.consumed)
    }

    /// Takes over a consumer index that was loaded once.
    fn see(&mut self, consumed: u32) -> Result<(), Violation> {
        // It lies between what was seen before and what was published; both are checked distances
        // of at most a ring, so the comparison holds across 2^32.
        let forward = consumed.wrapping_sub(self.consumed);
        if forward > self.published.wrapping_sub(self.consumed)
            || !consumed.is_multiple_of(RECORD_ALIGN as u32)
        {
            return self.fail(Violation::ConsumerIndex(consumed));
        }
        self.consumed = consumed;
        Ok(())
    }

    fn see_state(&mut self, state: u32) -> Result<(), Violation> {
        if state & !STATE_GONE != 0 {
            return self.fail(Violation::State(state));
        }
        self.gone |= state & STATE_GONE != 0;
        Ok(())
    }

    /// Notes that `index` is about to be stored in the page, and returns it.
    #[inline]
    fn note_published(&mut self) -> u32 {
        self.pending.add(self.index.wrapping_sub(self.published));
        self.published = self.index;
        self.index
    }

    /// Decides on the bell for what was published, given the consumer's mark.
    #[inline]
    fn compare(&mut self, mark: u32) -> Result<bool, Violation> {
        if self.pending.is_empty() {
            return Ok(false);
        }
        let ring = match self.pending.reached(mark, self.published) {
            Ok(ring) => ring,
            Err(violation) => return self.fail(violation),
        };
        self.counters.bell(ring);
        self.counters.publish(&self.control, PRODUCER_COUNTERS);
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
