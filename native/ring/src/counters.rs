//! Counters: one line per end in the control page, so that either end can show both views.

use crate::ControlPage;

/// What one end has counted since the ring began. In the page: u64 each, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages written or read, whole ones only.
    pub messages: u64,
    /// Payload bytes of those messages.
    pub bytes: u64,
    /// Times that this end announced a sleep and found nothing to do: full ring for the producer,
    /// empty ring for the consumer.
    pub waits: u64,
    /// Bells that this end was told to ring.
    pub rung: u64,
    /// Bells that were spared because the peer was awake.
    pub spared: u64,
}

impl Counters {
    /// Publishes the counters in the line at `line`. Each word is right by itself; the five are not
    /// a snapshot of one moment.
    #[inline]
    pub(crate) fn publish(&self, page: &ControlPage, line: usize) {
        let values = [
            self.messages,
            self.bytes,
            self.waits,
            self.rung,
            self.spared,
        ];
        for (i, value) in values.into_iter().enumerate() {
            page.store_count(line + 8 * i, value);
        }
    }

    /// Reads the counters of the line at `line`. The peer may have written anything there: show
    /// them, never reckon with them.
    pub(crate) fn read(page: &ControlPage, line: usize) -> Self {
        let [messages, bytes, waits, rung, spared] =
            [0, 1, 2, 3, 4].map(|i| page.load_count(line + 8 * i));
        Self {
            messages,
            bytes,
            waits,
            rung,
            spared,
        }
    }

    /// Notes the outcome of one comparison with the peer's mark.
    pub(crate) fn bell(&mut self, ring: bool) {
        if ring {
            self.rung += 1;
        } else {
            self.spared += 1;
        }
    }
}
