//! Reading records into messages.

use super::{Consumer, Open, Rest};
use crate::layout::{HEADER, HEADER_FIRST, INDEX, PRODUCER, RECORD_ALIGN};
use crate::record::{Kind, parse};
use crate::sync::Ordering::Acquire;
use crate::{Sink, Violation};

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

impl Consumer {
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

    /// Whether a pull would find anything, be it the end of data. Asks for no bell.
    ///
    /// # Errors
    /// As [`pull`](Self::pull), as far as the page's words show it.
    #[inline]
    pub fn is_ready(&mut self) -> Result<bool, Violation> {
        self.sound()?;
        Ok(self.seen != self.index || self.look()? || self.end.is_some())
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
}
