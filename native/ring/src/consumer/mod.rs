//! The reading end of a ring: its state and the end of data. Its loop is in `pull`.

mod pull;

use crate::counters::Counters;
use crate::layout::{
    CONSUMER, EVENT_INDEX, INDEX, LIMIT, MESSAGE_MAX, PRODUCER, STATE, STATE_FIN, STATE_GONE, never,
};
use crate::side::Side;
use crate::sync::Ordering::{Relaxed, Release};
use crate::{ControlPage, DataArea};

pub use pull::{Pull, Sink};

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
