//! Where a consumer puts what it takes out of the ring.

use crate::Fragment;

/// Receives one message at a time, in order, from [`Consumer::pull`](crate::Consumer::pull).
///
/// The sink owns the allocation, so bytes go from the ring straight to where they will stay. A
/// message may take several pulls; the sink keeps the beginning meanwhile.
pub trait Sink {
    /// A message of `total` bytes begins: make room for all of it. `false` refuses (no memory):
    /// the message stays in the ring and the pull answers [`Pull::Refused`](crate::Pull::Refused).
    ///
    /// `total` is at most the consumer's limit, but the peer's word all the same: nothing says
    /// that the bytes will follow.
    fn begin(&mut self, total: usize) -> bool;

    /// The bytes of the message from `offset` on. Offsets are contiguous and start at 0; a message
    /// of no bytes comes without a `put`.
    fn put(&mut self, offset: usize, bytes: Fragment<'_>);

    /// The sender gave up the message begun: drop what is there.
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
