//! The writing end of a ring.

use crate::counters::Counters;
use crate::layout::{
    CONSUMER, CONSUMER_COUNTERS, HEADER, HEADER_FIRST, INDEX, LIMIT, MARK, MESSAGE_MAX, PRODUCER,
    PRODUCER_COUNTERS, RECORD_ALIGN, STATE, STATE_FIN, STATE_GONE,
};
use crate::record::{Kind, header, padded};
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::announce_then_look;
use crate::wake::{Armed, Pending, STRIDE, nowhere_near, stride};
use crate::{ControlPage, DataArea, Violation};

/// How far a message has got into the ring; kept by its sender between calls of
/// [`Producer::push`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    sent: u32,
}

impl Progress {
    /// The progress of a message of which `sent` bytes are in the ring, as
    /// [`sent`](Self::sent) said earlier.
    pub fn at(sent: u32) -> Self {
        Self { sent }
    }

    /// Payload bytes in the ring so far. Above zero exactly if the message has begun: then it must
    /// be completed, or ended by [`Producer::abort`].
    pub fn sent(self) -> u32 {
        self.sent
    }
}

/// What became of a [`Producer::push`].
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
    /// The message that `done` speaks of was ended by [`Producer::abort`].
    Aborted,
    /// Longer than the receiver takes, which is `limit` bytes. Nothing was written.
    TooLong {
        /// Bytes that the receiver takes.
        limit: u32,
    },
    /// The reader has left: nobody will take it.
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

    /// Writes the message that `parts` make up, or the next part of it, at most `budget` payload
    /// bytes of it in this call. `done` says where it stands and is moved on.
    ///
    /// A message that fits both the budget and half the ring (and 64 KiB) becomes one record and is
    /// written wholly or not at all; any other is streamed in fragments, which a receiver can take
    /// while the rest is still being written. What is written becomes visible now and then, and for
    /// certain by [`publish`](Self::publish).
    ///
    /// # Errors
    /// The consumer wrote an impossible index, flag or limit.
    pub fn push_parts<P: AsRef<[u8]>>(
        &mut self,
        parts: &[P],
        done: &mut Progress,
        budget: usize,
    ) -> Result<Push, Violation> {
        self.sound()?;
        if self.finished {
            return Ok(Push::Finished);
        }
        if self.gone {
            return Ok(Push::Gone);
        }
        let length: u64 = parts.iter().map(|part| part.as_ref().len() as u64).sum();
        // Saturated only where it is too long anyway, since no limit is above MESSAGE_MAX.
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
        self.data
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
            // One header more than the fragment, so that an ABORT always finds room. A quarter of
            // the ring is enough to go on: waiting for more would idle, taking less would dribble.
            let least =
                (head + padded(want)).min((self.size / 4).max(HEADER_FIRST + HEADER)) + HEADER;
            let room = self.room(least)?;
            if room < least {
                return Ok(self.full(least));
            }
            let length = want.min(room - head - HEADER);
            let kind = if length == left { Kind::Last } else { kind };
            self.data.store_header(self.index, header(kind, length));
            if kind == Kind::First {
                self.data
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

    /// Ends the message in progress, if there is one, by an ABORT record: its sender gave up. There
    /// is always room for that. To be published like any record.
    pub fn abort(&mut self) {
        if self.open.take().is_some() {
            self.data.store_header(self.index, header(Kind::Abort, 0));
            self.advance(HEADER);
        }
    }

    /// Makes everything written visible. `true`: the consumer sleeps and waits for this, ring the
    /// bell. One call serves any number of pushes.
    ///
    /// # Errors
    /// The consumer wrote an impossible mark.
    #[must_use = "`true` means that the consumer sleeps and must be rung"]
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

    /// Largest payload of a WHOLE record: within half a ring it never has to wait for an empty one.
    fn whole_max(&self) -> u32 {
        (self.size / 2 - HEADER).min(STRIDE)
    }

    /// Largest payload of a fragment. Below `whole_max`, so a FIRST never holds all of a message
    /// that did not fit a WHOLE.
    fn fragment_max(&self) -> u32 {
        stride(self.size)
    }

    fn free(&self) -> u32 {
        self.size - self.index.wrapping_sub(self.consumed)
    }

    /// Free bytes; asks the consumer only if they are known to be fewer than `needed`.
    #[inline]
    fn room(&mut self, needed: u32) -> Result<u32, Violation> {
        if self.free() < needed {
            let consumed = self.control.load(CONSUMER + INDEX, Acquire);
            self.see(consumed)?;
        }
        Ok(self.free())
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

    fn full(&mut self, needed: u32) -> Push {
        self.wanted = needed;
        Push::Full
    }

    /// Copies `length` bytes of the message from `offset` on to the ring at `index`.
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
            self.data.write(index, piece);
            index = index.wrapping_add(piece.len() as u32);
            left -= piece.len();
            skip = 0;
        }
    }

    /// Moves the index past a record just written, and lets a reader that is awake see it when
    /// enough has gathered. A sleeping one is only woken by `publish`.
    #[inline]
    fn advance(&mut self, record: u32) {
        self.index = self.index.wrapping_add(record);
        if self.index.wrapping_sub(self.published) >= self.fragment_max() {
            let index = self.note_published();
            self.control.store(PRODUCER + INDEX, index, Release);
        }
    }

    /// Notes that `index` is about to be stored in the page, and returns it.
    fn note_published(&mut self) -> u32 {
        self.pending.add(self.index.wrapping_sub(self.published));
        self.published = self.index;
        self.index
    }

    fn complete(&mut self, total: u32) {
        self.counters.messages += 1;
        self.counters.bytes += u64::from(total);
    }

    /// Decides on the bell for what was published, given the consumer's mark.
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
