//! The reading end of a ring: pull records into messages, release their room, sleep while the ring
//! is empty.

use crate::layout::{
    CONSUMER, EVENT_INDEX, HEADER, HEADER_FIRST, INDEX, Kind, LIMIT, MESSAGE_MAX, PRODUCER,
    RECORD_ALIGN, STATE, STATE_FIN, STATE_GONE, never, padded,
};
use crate::memory::Ordering::{Acquire, Relaxed, Release};
use crate::side::{Armed, Counters, Side, stride};
use crate::{ControlPage, DataArea, Fragment, Violation};

/// Receives one message at a time, in order, from [`Consumer::pull`].
///
/// The sink owns the memory, so bytes go from the ring straight to their destination. A message may
/// take several pulls; the sink keeps the beginning meanwhile.
pub trait Sink {
    /// A message of `total` bytes begins: make room for all of it. `false` refuses it (no memory):
    /// the message stays in the ring and the pull returns [`Pull::Refused`].
    ///
    /// `total` is at most the consumer's limit, but it is the peer's claim: the bytes may never
    /// follow.
    fn begin(&mut self, total: usize) -> bool;

    /// The bytes of the message from `offset` on. Offsets are contiguous and start at 0; a message
    /// of no bytes comes without a `put`.
    fn put(&mut self, offset: usize, bytes: Fragment<'_>);

    /// The sender gave up the message: drop its beginning.
    fn discard(&mut self);
}

/// The simplest sink: holds the last message, or its beginning.
impl Sink for Vec<u8> {
    fn begin(&mut self, total: usize) -> bool {
        self.clear();
        self.try_reserve_exact(total).is_ok()
    }

    fn put(&mut self, _offset: usize, bytes: Fragment<'_>) {
        bytes.append_to(self);
    }

    fn discard(&mut self) {
        self.clear();
    }
}

/// The outcome of a [`Consumer::pull`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pull {
    /// The sink holds a whole message of so many bytes.
    Message(usize),
    /// So many bytes of a message, and more to come: call again.
    Partial(usize),
    /// The sender gave up the message in progress; the sink has discarded it.
    Aborted,
    /// The sink refused the next message, which stays in the ring.
    Refused,
    /// The ring is empty; [`Consumer::arm`], then call again.
    Empty,
    /// The ring is empty, and nothing more will come.
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

/// The reading end. Its indices are private; the page has only a copy for the peer.
#[derive(Debug)]
pub struct Consumer {
    side: Side<CONSUMER, PRODUCER>,
    /// Next byte to read, aligned only between records. The producer may overwrite what lies before
    /// the announced index, at most one ring behind this one.
    index: u32,
    /// The producer's index as last loaded and checked. Loaded again only when all up to it is
    /// read, so that the two processors do not compete for its cache line.
    published: u32,
    open: Option<Open>,
    rest: Option<Rest>,
    /// The longest message taken now, at most `announced_limit`.
    limit: u32,
    announced_limit: u32,
    /// The last index, once the end of data was seen.
    end: Option<u32>,
}

impl Consumer {
    /// The reading end of the ring of `control` and `data`, which takes messages of up to
    /// `max_message` bytes (at least 1, at most [`MESSAGE_MAX`]) and announces that limit in the
    /// page. Make it after the page was initialised or checked, and before the peer learns that we
    /// are connected: its sender reads the limit.
    pub fn new(control: ControlPage, data: DataArea, max_message: u32) -> Self {
        Self::starting_at(control, data, max_message, 0)
    }

    /// The same with indices that start at `index`, for tests of wrap-around.
    #[doc(hidden)]
    pub fn starting_at(control: ControlPage, data: DataArea, max_message: u32, index: u32) -> Self {
        // In the page, 0 means "not announced yet".
        let limit = max_message.clamp(1, MESSAGE_MAX);
        control.store(CONSUMER + LIMIT, limit, Relaxed);
        Self {
            side: Side::new(control, data, index),
            index,
            published: index,
            open: None,
            rest: None,
            limit,
            announced_limit: limit,
            end: None,
        }
    }

    /// Takes the next record, or at most `budget` payload bytes of it, into `sink`.
    ///
    /// One call handles one record at most, whatever the producer does meanwhile, so a loop that
    /// counts its calls and the bytes is bounded. Call [`release_batch`](Self::release_batch) or
    /// [`release`](Self::release) to give its room back.
    ///
    /// # Errors
    /// The producer wrote an impossible index, record, sequence of records or flag.
    #[inline]
    pub fn pull<S: Sink>(&mut self, sink: &mut S, budget: usize) -> Result<Pull, Violation> {
        self.side.check()?;
        let rest = match self.rest {
            Some(rest) => rest,
            None => {
                if self.published == self.index && !self.refresh()? {
                    return Ok(if self.end.is_some() {
                        Pull::Finished
                    } else {
                        Pull::Empty
                    });
                }
                match self.enter(sink)? {
                    Ok(rest) => rest,
                    Err(outcome) => return Ok(outcome),
                }
            }
        };
        self.take(rest, sink, budget)
    }

    /// Reads and checks the header at the index and makes its payload the record in progress, or
    /// returns the outcome of the pull.
    #[inline]
    fn enter<S: Sink>(&mut self, sink: &mut S) -> Result<Result<Rest, Pull>, Violation> {
        let (kind, length) = match parse(self.side.data.load_header(self.index)) {
            Ok(parsed) => parsed,
            Err(violation) => return self.side.fail(violation),
        };
        let head = if kind == Kind::First {
            HEADER_FIRST
        } else {
            HEADER
        };
        // A record is published whole, so all of it lies below the producer's index, which is at
        // most a ring ahead. In u64, because the length may be anything.
        let published = self.published.wrapping_sub(self.index);
        if u64::from(head) + u64::from(length).next_multiple_of(RECORD_ALIGN as u64)
            > u64::from(published)
        {
            return self.side.fail(Violation::Length(length));
        }
        match (kind, self.open) {
            (Kind::Whole, None) => {
                if length > self.limit {
                    return self.side.fail(Violation::TooLong(length));
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
                let word = self.side.data.load_header(self.index.wrapping_add(HEADER));
                let total = match u32::try_from(word) {
                    Ok(total) => total,
                    Err(_) => return self.side.fail(Violation::Total(word)),
                };
                if length == 0 {
                    return self.side.fail(Violation::EmptyFragment);
                }
                if length >= total {
                    return self.side.fail(Violation::Total(word));
                }
                if total > self.limit {
                    return self.side.fail(Violation::TooLong(total));
                }
                if !sink.begin(total as usize) {
                    return Ok(Err(Pull::Refused));
                }
                self.open = Some(Open { total, got: 0 });
            }
            (Kind::More | Kind::Last, Some(open)) => {
                if length == 0 {
                    return self.side.fail(Violation::EmptyFragment);
                }
                let sum = u64::from(open.got) + u64::from(length);
                let fits = match kind {
                    Kind::Last => sum == u64::from(open.total),
                    _ => sum < u64::from(open.total),
                };
                if !fits {
                    return self.side.fail(Violation::Sum(sum));
                }
            }
            (Kind::Abort, Some(_)) => {
                if length != 0 {
                    return self.side.fail(Violation::Length(length));
                }
                self.index = self.index.wrapping_add(HEADER);
                self.open = None;
                sink.discard();
                return Ok(Err(Pull::Aborted));
            }
            (Kind::Whole | Kind::First, Some(_)) => return self.side.fail(Violation::NotEnded),
            (Kind::More | Kind::Last | Kind::Abort, None) => {
                return self.side.fail(Violation::NotBegun);
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
            sink.put(
                open.got as usize,
                self.side.data.fragment(self.index, length),
            );
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
            self.side.counters.messages += 1;
            self.side.counters.bytes += u64::from(open.total);
            return Ok(Pull::Message(open.total as usize));
        }
        self.open = Some(Open {
            total: open.total,
            got: open.got + length,
        });
        Ok(Pull::Partial(length as usize))
    }

    /// Whether a pull would find anything, even the end of data. Does not ask for a notification.
    ///
    /// # Errors
    /// As [`pull`](Self::pull), as far as the page's words show it.
    #[inline]
    pub fn is_ready(&mut self) -> Result<bool, Violation> {
        self.side.check()?;
        Ok(self.published != self.index || self.refresh()? || self.end.is_some())
    }

    /// Loads the producer's index, and notes the end of data. Returns whether there is a record.
    fn refresh(&mut self) -> Result<bool, Violation> {
        let published = self.side.control.load(PRODUCER + INDEX, Acquire);
        self.accept_index(published)?;
        if self.published != self.index {
            return Ok(true);
        }
        self.peer_finished()?;
        if self.published != self.index {
            return Ok(true);
        }
        if self.end.is_some() && self.open.is_some() {
            return self.side.fail(Violation::FinInMessage);
        }
        Ok(false)
    }

    /// Releases the room of everything read. `true`: the producer sleeps and waits for it, notify
    /// it. One call serves any number of pulls.
    ///
    /// # Errors
    /// The producer wrote an impossible event index.
    #[must_use = "`true` means that the producer sleeps and must be notified"]
    pub fn release(&mut self) -> Result<bool, Violation> {
        self.side.announce(self.aligned_index())
    }

    /// [`release`](Self::release) if a quarter of the ring or 64 KiB has accumulated, else nothing.
    /// Calling it after each pull, or every few of them, is enough: a producer never waits for as
    /// little as this holds back.
    ///
    /// # Errors
    /// As `release`.
    #[inline]
    #[must_use = "`true` means that the producer sleeps and must be notified"]
    pub fn release_batch(&mut self) -> Result<bool, Violation> {
        let unreleased = self.aligned_index().wrapping_sub(self.side.announced());
        if unreleased < stride(self.side.size) {
            return Ok(false);
        }
        self.release()
    }

    /// Announces a wait for the next record. Also releases, as [`release`](Self::release) does,
    /// with the same single fence. The end of data counts as something to do.
    ///
    /// # Errors
    /// The producer wrote an impossible index, event index or flag.
    pub fn arm(&mut self) -> Result<Armed, Violation> {
        self.side.check()?;
        let index = self.aligned_index();
        let event_index = index.wrapping_add(self.wanted());
        let (theirs, (state, published)) = self.side.arm(index, event_index, |control| {
            (
                // Before the index: with FIN seen, the index is the last one.
                control.load(PRODUCER + STATE, Acquire),
                control.load(PRODUCER + INDEX, Acquire),
            )
        });
        self.accept_index(published)?;
        self.accept_state(state)?;
        let ready = self.published != self.index || self.end.is_some();
        self.side.armed(ready, theirs)
    }

    /// How far past the index to sleep. The next record starts at the index.
    fn wanted(&self) -> u32 {
        match self.open {
            // Any record reaches it.
            None => RECORD_ALIGN as u32,
            // Half a message is of no use to the owner, so the reader stays behind the writer,
            // which goes on copying: by the rest of the message or half the ring. A writer that
            // runs out of room has passed that, and one that gives up notifies in any case.
            Some(open) => (HEADER + padded(open.total - open.got)).min(self.side.size / 2),
        }
    }

    /// Withdraws the event index of [`arm`](Self::arm), which saves a notification unless it is
    /// already on its way.
    pub fn disarm(&mut self) {
        self.side.disarm();
    }

    /// Whether the producer has declared the end of data; there may be data to pull before it.
    ///
    /// # Errors
    /// Unknown close flags, an impossible index.
    pub fn peer_finished(&mut self) -> Result<bool, Violation> {
        self.side.check()?;
        if self.end.is_none() {
            let state = self.side.control.load(PRODUCER + STATE, Acquire);
            let published = self.side.control.load(PRODUCER + INDEX, Acquire);
            self.accept_index(published)?;
            self.accept_state(state)?;
        }
        Ok(self.end.is_some())
    }

    /// Checks and takes a producer index that was loaded once.
    fn accept_index(&mut self, published: u32) -> Result<(), Violation> {
        if self.end.is_some_and(|end| published != end) {
            return self.side.fail(Violation::AfterFin(published));
        }
        // Not behind the last one, and not more than a ring ahead of what was released; both
        // distances are of at most a ring, so the comparison holds across 2^32.
        let released = self.side.announced();
        let ahead = published.wrapping_sub(released);
        if ahead > self.side.size
            || ahead < self.published.wrapping_sub(released)
            || !published.is_multiple_of(RECORD_ALIGN as u32)
        {
            return self.side.fail(Violation::ProducerIndex(published));
        }
        self.published = published;
        Ok(())
    }

    /// Checks and takes a producer state that was loaded *before* the last index.
    fn accept_state(&mut self, state: u32) -> Result<(), Violation> {
        if state & !STATE_FIN != 0 {
            return self.side.fail(Violation::State(state));
        }
        if state & STATE_FIN != 0 && self.end.is_none() {
            self.end = Some(self.published);
        }
        Ok(())
    }

    /// The index rounded down to alignment: what can be released.
    fn aligned_index(&self) -> u32 {
        self.index & !(RECORD_ALIGN as u32 - 1)
    }

    /// Declares that nothing more will be read. Notify the producer in any case.
    pub fn leave(&mut self) {
        self.side
            .control
            .store(CONSUMER + STATE, STATE_GONE, Release);
        self.side.publish_counters();
    }

    /// Moves to private pages, zeroed and of the same size, so that the shared ones can be
    /// released. Copies what is unread, as far as the producer has published it by now; what it
    /// writes later is not seen. If its last words are impossible, the next call returns that
    /// violation.
    ///
    /// # Panics
    /// If the new ring has another size.
    pub fn move_to(&mut self, control: ControlPage, mut data: DataArea) {
        // The side keeps a violation.
        _ = self.peer_finished();
        let mut unread = Vec::new();
        if !self.side.is_violated() {
            let length = self.published.wrapping_sub(self.index);
            self.side
                .data
                .fragment(self.index, length)
                .append_to(&mut unread);
            data.write(self.index, &unread);
        }
        let state = if self.end.is_some() { STATE_FIN } else { 0 };
        control.store(PRODUCER + INDEX, self.published, Relaxed);
        control.store(
            PRODUCER + EVENT_INDEX,
            never(self.side.announced()),
            Relaxed,
        );
        control.store(PRODUCER + STATE, state, Relaxed);
        self.side.move_to(control, data);
    }

    /// From here on takes only messages of up to `most` bytes (at least 1), and never more than was
    /// announced. Use it while the peer must not yet send longer ones, so that it cannot make us
    /// allocate memory for them.
    pub fn restrict(&mut self, most: u32) {
        self.limit = most.clamp(1, self.announced_limit);
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> usize {
        self.side.size as usize
    }

    /// Bytes known to be in the ring and not read, headers included.
    pub fn backlog(&self) -> usize {
        self.published.wrapping_sub(self.index) as usize
    }

    /// What this end has counted.
    pub fn counters(&self) -> Counters {
        self.side.counters
    }
}

/// Splits a header word; does not check the length.
fn parse(word: u64) -> Result<(Kind, u32), Violation> {
    let kind = match (word >> 32) as u32 {
        1 => Kind::Whole,
        2 => Kind::First,
        4 => Kind::More,
        8 => Kind::Last,
        16 => Kind::Abort,
        flags => return Err(Violation::Flags(flags)),
    };
    Ok((kind, word as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::header;

    #[test]
    fn every_kind_is_parsed_and_any_other_flag_word_is_refused() {
        for kind in [
            Kind::Whole,
            Kind::First,
            Kind::More,
            Kind::Last,
            Kind::Abort,
        ] {
            assert_eq!(parse(header(kind, 77)), Ok((kind, 77)));
        }
        for flags in (0..=64u32).chain([0x100, 0x8000_0000, 0x1_0001, u32::MAX]) {
            if !flags.is_power_of_two() || flags > 16 {
                let word = u64::from(flags) << 32 | 8;
                assert_eq!(parse(word), Err(Violation::Flags(flags)));
            }
        }
    }
}
