//! Writing messages as records.

use super::{Open, Producer};
use crate::Violation;
use crate::layout::{CONSUMER, HEADER, HEADER_FIRST, INDEX, PRODUCER};
use crate::record::{Kind, header, padded};
use crate::sync::Ordering::{Acquire, Release};
use crate::wake::{STRIDE, stride};

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

impl Producer {
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
    /// is always room for that. To be published like any record; but ring the bell in any case, for a
    /// reader in the midst of the message has asked for more of it.
    pub fn abort(&mut self) {
        if self.open.take().is_some() {
            self.data.store_header(self.index, header(Kind::Abort, 0));
            self.advance(HEADER);
        }
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

    /// Free bytes; asks the consumer only if they are known to be fewer than `needed`.
    #[inline]
    pub(super) fn room(&mut self, needed: u32) -> Result<u32, Violation> {
        if self.free() < needed {
            let consumed = self.control.load(CONSUMER + INDEX, Acquire);
            self.see(consumed)?;
        }
        Ok(self.free())
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
    pub(super) fn advance(&mut self, record: u32) {
        self.index = self.index.wrapping_add(record);
        if self.index.wrapping_sub(self.published) >= self.fragment_max() {
            let index = self.note_published();
            self.control.store(PRODUCER + INDEX, index, Release);
        }
    }

    #[inline]
    pub(super) fn complete(&mut self, total: u32) {
        self.counters.messages += 1;
        self.counters.bytes += u64::from(total);
    }
}
