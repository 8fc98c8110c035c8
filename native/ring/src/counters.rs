//! Counters: one line per end in the control page.

use crate::ControlPage;

/// What one end has counted since it was made. In the page: u64 each, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Complete messages written or read.
    pub messages: u64,
    /// Payload bytes of those messages.
    pub bytes: u64,
    /// How often this end prepared to sleep and found nothing to do: a full ring for the producer,
    /// an empty one for the consumer.
    pub waits: u64,
    /// Notifications that this end had to send.
    pub notifications: u64,
    /// Notifications saved because the peer was awake.
    pub notifications_saved: u64,
}

impl Counters {
    /// Publishes the counters in the line at `line`. Each word is exact; the five together are not
    /// an atomic snapshot.
    #[inline]
    pub(crate) fn publish(&self, page: &ControlPage, line: usize) {
        let values = [
            self.messages,
            self.bytes,
            self.waits,
            self.notifications,
            self.notifications_saved,
        ];
        for (i, value) in values.into_iter().enumerate() {
            page.store_count(line + 8 * i, value);
        }
    }

    /// Counts one comparison with the peer's event index.
    pub(crate) fn count_comparison(&mut self, notify: bool) {
        if notify {
            self.notifications += 1;
        } else {
            self.notifications_saved += 1;
        }
    }
}
