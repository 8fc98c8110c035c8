//! The reading end of a ring: what it knows, giving back, sleeping, the end. Reading is in `pull`.

mod pull;

use crate::counters::Counters;
use crate::layout::{
    CONSUMER, CONSUMER_COUNTERS, HEADER, INDEX, LIMIT, MARK, MESSAGE_MAX, PRODUCER,
    PRODUCER_COUNTERS, RECORD_ALIGN, STATE, STATE_FIN, STATE_GONE,
};
use crate::record::padded;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::announce_then_look;
use crate::wake::{Armed, Pending, nowhere_near, stride};
use crate::{ControlPage, DataArea, Violation};

pub use pull::Pull;

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
    /// The longest message that is taken now, at most what was announced.
    limit: u32,
    announced: u32,
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
            announced: limit,
            end: None,
            counters: Counters::default(),
            fault: None,
        }
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
        let mark = index.wrapping_add(self.wanted());
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

    /// How far from the index to sleep, which is where the next record starts.
    fn wanted(&self) -> u32 {
        match self.open {
            // Reached by any record.
            None => RECORD_ALIGN as u32,
            // Half a message is of no use to anybody, so the reader stays behind its writer, who copies
            // meanwhile: by the rest of the message or half the ring. A writer that stops for want of room
            // has passed that, and one that gives up rings in any case.
            Some(open) => (HEADER + padded(open.total - open.got)).min(self.size / 2),
        }
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

    /// Goes on in pages of our own, zeroed and as many, so that the shared ones may go: what is unread
    /// is copied there, as far as the producer has published it by now. Nothing that it writes later
    /// is seen. A last word of it that is impossible is met by the next call, as ever.
    ///
    /// # Panics
    /// If the ring is of another size.
    pub fn move_to(&mut self, control: ControlPage, mut data: DataArea) {
        assert_eq!(data.size(), self.size, "a ring moves to one of its size");
        // Noted in `fault`, if it is one.
        _ = self.peer_finished();
        let mut unread = Vec::new();
        if self.fault.is_none() {
            let length = self.seen.wrapping_sub(self.index);
            self.data
                .fragment(self.index, length)
                .append_to(&mut unread);
            data.write(self.index, &unread);
        }
        let state = if self.end.is_some() { STATE_FIN } else { 0 };
        control.store(PRODUCER + INDEX, self.seen, Relaxed);
        control.store(PRODUCER + MARK, nowhere_near(self.released), Relaxed);
        control.store(PRODUCER + STATE, state, Relaxed);
        self.peer_counters().publish(&control, PRODUCER_COUNTERS);
        self.control = control;
        self.data = data;
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

    /// Takes messages of up to `most` bytes (at least 1) from here on, and never more than was announced.
    /// For a peer that does not send longer ones before it may, and is not to be trusted with the memory
    /// for them until then.
    pub fn restrict(&mut self, most: u32) {
        self.limit = most.clamp(1, self.announced);
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
