//! The writing end of a ring: its state and the end of data. Its loop is in `push`.

mod push;

use crate::counters::Counters;
use crate::layout::{
    CONSUMER, EVENT_INDEX, INDEX, LIMIT, MESSAGE_MAX, PRODUCER, RECORD_ALIGN, STATE, STATE_FIN,
    STATE_GONE, never,
};
use crate::side::Side;
use crate::sync::Ordering::{Relaxed, Release};
use crate::{ControlPage, DataArea, Violation};

pub use push::{Progress, Push};

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
