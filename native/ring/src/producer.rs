//! The writing end of a ring: push messages as records, publish them, sleep while the ring is full.

use crate::layout::{
    CONSUMER, EVENT_INDEX, HEADER, HEADER_FIRST, INDEX, Kind, LIMIT, MESSAGE_MAX, PRODUCER,
    RECORD_ALIGN, STATE, STATE_FIN, STATE_GONE, header, never, padded,
};
use crate::memory::Ordering::{Acquire, Relaxed, Release};
use crate::side::{Armed, Counters, STRIDE, Side, stride};
use crate::{ControlPage, DataArea, Violation};

/// How far ahead of the index to prefetch. The cache lines are with the reader's processor since
/// the last lap; fetching them takes as long as writing a few short messages.
const PREFETCH: u32 = 512;
/// Longest record to prefetch for. The stores of longer ones hide the latency themselves.
const PREFETCH_MAX: u32 = 4096;

/// How much of a message is in the ring; its sender keeps it between calls of
/// [`Producer::push`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    sent: u32,
}

impl Progress {
    /// The progress of a message of which `sent` bytes are in the ring, as
    /// [`sent`](Self::sent) returned earlier.
    pub fn at(sent: u32) -> Self {
        Self { sent }
    }

    /// Payload bytes in the ring so far. If above zero, the message has begun, and must be
    /// completed or ended by [`Producer::abort`].
    pub fn sent(self) -> u32 {
        self.sent
    }
}

/// The outcome of a [`Producer::push`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Push {
    /// The message is wholly in the ring.
    Whole,
    /// The byte budget is used up; call again.
    Budget,
    /// No room for the next piece; [`Producer::arm`], then call again.
    Full,
    /// Another message is in progress; wait until it is complete.
    Busy,
    /// The message was ended by [`Producer::abort`].
    Aborted,
    /// The message exceeds the consumer's limit. Nothing was written.
    TooLong {
        /// The limit in bytes.
        limit: u32,
    },
    /// The consumer has left.
    Gone,
    /// [`Producer::finish`] was called before.
    Finished,
}

/// The message in progress.
#[derive(Clone, Copy, Debug)]
struct Open {
    total: u32,
    sent: u32,
}

/// The writing end. Its indices are private; the page has only a copy for the peer.
#[derive(Debug)]
pub struct Producer {
    side: Side<PRODUCER, CONSUMER>,
    /// End of what is written, at most one ring ahead of what was announced.
    index: u32,
    /// The consumer's index as last loaded and checked. Loaded again only when room runs out, so
    /// that the two processors do not compete for its cache line.
    consumed: u32,
    /// Room that the last [`Push::Full`] lacked.
    wanted: u32,
    open: Option<Open>,
    /// The consumer's limit once it has been read.
    limit: Option<u32>,
    gone: bool,
    finished: bool,
}

impl Producer {
    /// The writing end of the ring of `control` and `data`.
    pub fn new(control: ControlPage, data: DataArea) -> Self {
        Self::starting_at(control, data, 0)
    }

    /// The same with indices that start at `index`, for tests of wrap-around.
    #[doc(hidden)]
    pub fn starting_at(control: ControlPage, data: DataArea, index: u32) -> Self {
        Self {
            side: Side::new(control, data, index),
            index,
            consumed: index,
            wanted: RECORD_ALIGN as u32,
            open: None,
            limit: None,
            gone: false,
            finished: false,
        }
    }

    /// The fast path for a short message: writes it whole, without publishing it. `false`: nothing
    /// was written; [`push`](Self::push) does it or says why not.
    ///
    /// The outcome of `push` does not fit registers, which for a message of 64 bytes costs more
    /// than copying it.
    #[inline]
    pub fn put(&mut self, message: &[u8]) -> bool {
        let limit = self
            .limit
            .unwrap_or(0)
            .min(STRIDE)
            .min(self.side.size / 2 - HEADER);
        if message.len() > limit as usize
            || self.open.is_some()
            || self.finished
            || self.gone
            || self.side.is_violated()
        {
            return false;
        }
        let length = message.len() as u32;
        let record = HEADER + padded(length);
        if self.free() < record && !matches!(self.room(record), Ok(room) if room >= record) {
            return false;
        }
        self.side
            .data
            .store_header(self.index, header(Kind::Whole, length));
        self.side
            .data
            .write(self.index.wrapping_add(HEADER), message);
        self.advance(record);
        self.complete(length);
        self.prefetch(record);
        true
    }

    /// Prefetches the place of the next message of this size, unless the consumer may still read
    /// there.
    #[inline]
    fn prefetch(&self, record: u32) {
        if record <= PREFETCH_MAX && self.free() >= PREFETCH + record {
            self.side
                .data
                .prefetch(self.index.wrapping_add(PREFETCH), record);
        }
    }

    /// Writes `message`, or the next part of it: [`push_parts`](Self::push_parts) of one part.
    ///
    /// # Errors
    /// As `push_parts`.
    #[inline]
    pub fn push(
        &mut self,
        message: &[u8],
        done: &mut Progress,
        budget: usize,
    ) -> Result<Push, Violation> {
        self.push_parts(&[message], done, budget)
    }

    /// Writes the message that `parts` make up, or the next part of it: at most `budget` payload
    /// bytes in this call. `done` is its progress, and is updated.
    ///
    /// A message that fits the budget, half the ring and 64 KiB becomes one record, written wholly
    /// or not at all; any other is streamed in fragments, which the consumer can take while the
    /// rest is still being written. An awake consumer may see some of it at once;
    /// [`publish`](Self::publish) makes all of it visible.
    ///
    /// # Errors
    /// The consumer wrote an impossible index, flag or limit.
    pub fn push_parts<P: AsRef<[u8]>>(
        &mut self,
        parts: &[P],
        done: &mut Progress,
        budget: usize,
    ) -> Result<Push, Violation> {
        self.side.check()?;
        if self.finished {
            return Ok(Push::Finished);
        }
        if self.gone {
            return Ok(Push::Gone);
        }
        let length: u64 = parts.iter().map(|part| part.as_ref().len() as u64).sum();
        // Saturates only where it is too long anyway, since no limit is above MESSAGE_MAX.
        let total = u32::try_from(length).unwrap_or(u32::MAX);
        let budget = u32::try_from(budget).unwrap_or(u32::MAX);
        match self.open {
            None if done.sent > 0 => return Ok(Push::Aborted),
            None => {
                let limit = self.limit()?;
                if total > limit {
                    return Ok(Push::TooLong { limit });
                }
                if total <= self.whole_max() && total <= budget {
                    return self.push_whole(parts, total, done);
                }
            }
            Some(open) if open.total != total || open.sent != done.sent => return Ok(Push::Busy),
            Some(_) => {}
        }
        self.push_fragments(parts, total, done, budget)
    }

    fn push_whole<P: AsRef<[u8]>>(
        &mut self,
        parts: &[P],
        total: u32,
        done: &mut Progress,
    ) -> Result<Push, Violation> {
        let record = HEADER + padded(total);
        if self.room(record)? < record {
            return Ok(self.full(record));
        }
        self.side
            .data
            .store_header(self.index, header(Kind::Whole, total));
        self.copy(self.index.wrapping_add(HEADER), parts, 0, total);
        self.advance(record);
        done.sent = total;
        self.complete(total);
        Ok(Push::Whole)
    }

    fn push_fragments<P: AsRef<[u8]>>(
        &mut self,
        parts: &[P],
        total: u32,
        done: &mut Progress,
        budget: u32,
    ) -> Result<Push, Violation> {
        let mut budget = budget;
        loop {
            if budget == 0 {
                return Ok(Push::Budget);
            }
            let (kind, head) = match self.open {
                None => (Kind::First, HEADER_FIRST),
                Some(_) => (Kind::More, HEADER),
            };
            let left = total - done.sent;
            let want = left.min(budget).min(self.fragment_max());
            // One header more than the fragment, so that there is always room for an ABORT. A
            // quarter of the ring is enough to go on: waiting for more would idle, taking less
            // would make tiny fragments.
            let least =
                (head + padded(want)).min((self.side.size / 4).max(HEADER_FIRST + HEADER)) + HEADER;
            let room = self.room(least)?;
            if room < least {
                return Ok(self.full(least));
            }
            let length = want.min(room - head - HEADER);
            let kind = if length == left { Kind::Last } else { kind };
            self.side
                .data
                .store_header(self.index, header(kind, length));
            if kind == Kind::First {
                self.side
                    .data
                    .store_header(self.index.wrapping_add(HEADER), u64::from(total));
            }
            self.copy(self.index.wrapping_add(head), parts, done.sent, length);
            self.advance(head + padded(length));
            budget -= length;
            done.sent += length;
            if kind == Kind::Last {
                self.open = None;
                self.complete(total);
                return Ok(Push::Whole);
            }
            self.open = Some(Open {
                total,
                sent: done.sent,
            });
        }
    }

    /// Ends the message in progress, if there is one, with an ABORT record: its sender gave up.
    /// There is always room for that. Publish it like any record, but notify the consumer in any
    /// case: in the middle of a message its event index lies further ahead.
    pub fn abort(&mut self) {
        if self.open.take().is_some() {
            self.side
                .data
                .store_header(self.index, header(Kind::Abort, 0));
            self.advance(HEADER);
        }
    }

    /// Largest payload of a WHOLE record. Within half the ring, it never waits for an empty one.
    fn whole_max(&self) -> u32 {
        (self.side.size / 2 - HEADER).min(STRIDE)
    }

    /// Largest payload of a fragment. Below `whole_max`, so that a FIRST never holds all of a
    /// message that did not fit a WHOLE.
    fn fragment_max(&self) -> u32 {
        stride(self.side.size)
    }

    /// Free bytes. Loads the consumer's index only if fewer than `needed` are known to be free.
    #[inline]
    fn room(&mut self, needed: u32) -> Result<u32, Violation> {
        if self.free() < needed {
            let consumed = self.side.control.load(CONSUMER + INDEX, Acquire);
            self.accept_index(consumed)?;
        }
        Ok(self.free())
    }

    #[inline]
    fn free(&self) -> u32 {
        self.side.size - self.index.wrapping_sub(self.consumed)
    }

    /// Checks and takes a consumer index that was loaded once.
    fn accept_index(&mut self, consumed: u32) -> Result<(), Violation> {
        // It lies between the last one and what was announced; both are checked distances of at
        // most a ring, so the comparison holds across 2^32.
        let forward = consumed.wrapping_sub(self.consumed);
        if forward > self.side.announced().wrapping_sub(self.consumed)
            || !consumed.is_multiple_of(RECORD_ALIGN as u32)
        {
            return self.side.fail(Violation::ConsumerIndex(consumed));
        }
        self.consumed = consumed;
        Ok(())
    }

    fn full(&mut self, needed: u32) -> Push {
        self.wanted = needed;
        Push::Full
    }

    fn accept_state(&mut self, state: u32) -> Result<(), Violation> {
        if state & !STATE_GONE != 0 {
            return self.side.fail(Violation::State(state));
        }
        self.gone |= state & STATE_GONE != 0;
        Ok(())
    }

    /// Copies `length` bytes of the message, from `offset` on, into the ring at `index`.
    #[inline]
    fn copy<P: AsRef<[u8]>>(&mut self, index: u32, parts: &[P], offset: u32, length: u32) {
        let (mut index, mut skip, mut left) = (index, offset as usize, length as usize);
        for part in parts {
            let part = part.as_ref();
            if left == 0 {
                break;
            }
            if skip >= part.len() {
                skip -= part.len();
                continue;
            }
            let piece = &part[skip..];
            let piece = &piece[..piece.len().min(left)];
            self.side.data.write(index, piece);
            index = index.wrapping_add(piece.len() as u32);
            left -= piece.len();
            skip = 0;
        }
    }

    /// Moves the index past a record just written. Once enough has accumulated, an awake consumer
    /// sees it; only `publish` wakes a sleeping one.
    #[inline]
    fn advance(&mut self, record: u32) {
        self.index = self.index.wrapping_add(record);
        if self.index.wrapping_sub(self.side.announced()) >= self.fragment_max() {
            self.side.store_index(self.index);
        }
    }

    #[inline]
    fn complete(&mut self, total: u32) {
        self.side.counters.messages += 1;
        self.side.counters.bytes += u64::from(total);
    }

    /// Makes everything written visible. `true`: the consumer sleeps and waits for this, notify it.
    /// One call serves any number of pushes.
    ///
    /// # Errors
    /// The consumer wrote an impossible event index.
    #[must_use = "`true` means that the consumer sleeps and must be notified"]
    #[inline]
    pub fn publish(&mut self) -> Result<bool, Violation> {
        self.side.announce(self.index)
    }

    /// Whether a push that met [`Push::Full`] could go on now. Does not ask for a notification.
    ///
    /// # Errors
    /// As [`arm`](Self::arm), except for an impossible event index.
    pub fn has_room(&mut self) -> Result<bool, Violation> {
        self.side.check()?;
        let consumed = self.side.control.load(CONSUMER + INDEX, Acquire);
        let state = self.side.control.load(CONSUMER + STATE, Acquire);
        self.accept_index(consumed)?;
        self.accept_state(state)?;
        Ok(self.gone || self.free() >= self.wanted)
    }

    /// Announces a wait for room: for what the last [`Push::Full`] lacked, or half the ring if that
    /// is more, so that a bulk writer is not woken for each record read. Also publishes, as
    /// [`publish`](Self::publish) does, with the same single fence.
    ///
    /// # Errors
    /// The consumer wrote an impossible index, event index or flag.
    pub fn arm(&mut self) -> Result<Armed, Violation> {
        self.side.check()?;
        let event_index = self
            .index
            .wrapping_add(self.wanted.max(self.side.size / 2))
            .wrapping_sub(self.side.size);
        let (theirs, (consumed, state)) = self.side.arm(self.index, event_index, |control| {
            (
                control.load(CONSUMER + INDEX, Acquire),
                control.load(CONSUMER + STATE, Acquire),
            )
        });
        self.accept_index(consumed)?;
        self.accept_state(state)?;
        let ready = self.gone || self.free() >= self.wanted;
        self.side.armed(ready, theirs)
    }

    /// Declares the end of data, after ending a message in progress. Notify the consumer in any
    /// case.
    pub fn finish(&mut self) {
        if self.finished || self.side.is_violated() {
            return;
        }
        self.abort();
        self.finished = true;
        self.side.store_index(self.index);
        // Released after the index: a reader that sees the flag sees the last index.
        self.side
            .control
            .store(PRODUCER + STATE, STATE_FIN, Release);
        self.side.publish_counters();
    }

    /// Moves to private pages, zeroed and of the same size, so that the shared ones can be
    /// released. Nothing reads there, as after a consumer has left; unread data stays behind.
    ///
    /// # Panics
    /// If the new ring has another size.
    pub fn move_to(&mut self, control: ControlPage, data: DataArea) {
        control.store(CONSUMER + INDEX, self.consumed, Relaxed);
        control.store(
            CONSUMER + EVENT_INDEX,
            never(self.side.announced()),
            Relaxed,
        );
        control.store(CONSUMER + STATE, STATE_GONE, Relaxed);
        control.store(CONSUMER + LIMIT, self.limit.unwrap_or(0), Relaxed);
        self.side.move_to(control, data);
    }

    /// Largest message that the consumer takes, in bytes: [`MESSAGE_MAX`] until it has announced a
    /// limit.
    ///
    /// # Errors
    /// An impossible limit.
    pub fn limit(&mut self) -> Result<u32, Violation> {
        self.side.check()?;
        if let Some(limit) = self.limit {
            return Ok(limit);
        }
        let limit = self.side.control.load(CONSUMER + LIMIT, Relaxed);
        if limit > MESSAGE_MAX {
            return self.side.fail(Violation::Limit(limit));
        }
        if limit == 0 {
            return Ok(MESSAGE_MAX);
        }
        self.limit = Some(limit);
        Ok(limit)
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> usize {
        self.side.size as usize
    }

    /// Bytes of the ring that the consumer has not yet released, headers included, as last loaded.
    pub fn backlog(&self) -> usize {
        (self.side.size - self.free()) as usize
    }

    /// What this end has counted.
    pub fn counters(&self) -> Counters {
        self.side.counters
    }
}
