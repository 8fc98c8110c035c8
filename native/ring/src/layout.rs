//! Wire version 1 in numbers: where each word of the control page lies and which bits it may have,
//! and the header word of a record.
//!
//! `docs/wire.md` describes this file; a change here is a new wire version.

/// Bytes of a page, on the wire and in grants, whatever the machine's own page size.
pub const PAGE: usize = 4096;
/// Version of the layout, in the control page and in the handshake.
pub const VERSION: u32 = 1;
/// Every record starts at a multiple of this many bytes, so a header word never wraps.
pub const RECORD_ALIGN: usize = 8;
/// Largest ring order: 2^8 data pages, 1 MiB.
pub const ORDER_MAX: u32 = 8;
/// Largest message in bytes that version 1 may carry: one byte less than 2 GiB.
pub const MESSAGE_MAX: u32 = i32::MAX as u32;

/// First word of a control page: the bytes `Tube`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"Tube");
/// Feature bits that a reader must know, or refuse the ring. Version 1 defines none.
pub const FEATURES_REQUIRED: u32 = 0x0000_ffff;
/// Feature bits that this implementation offers.
pub const FEATURES: u32 = 0;

/// Distance between the lines of two writers: two 64-byte cache lines, because adjacent-line
/// prefetch of x86 fetches pairs, and 128 is the line of some Arm machines.
pub const LINE: usize = 128;

// Header line: written by the owner before the page is published, constant afterwards.
/// Offset of [`MAGIC`].
pub const HEADER_MAGIC: usize = 0x00;
/// Offset of [`VERSION`].
pub const HEADER_VERSION: usize = 0x04;
/// Offset of the feature bits.
pub const HEADER_FEATURES: usize = 0x08;
/// Offset of the direction: 1 = tx, 2 = rx.
pub const HEADER_DIRECTION: usize = 0x0c;
/// Offset of the order.
pub const HEADER_ORDER: usize = 0x10;
/// Offset of the number of grant references, 2^order.
pub const HEADER_COUNT: usize = 0x14;
/// Offset of the nonce (u64).
pub const HEADER_NONCE: usize = 0x18;

/// Line of the producer: only the producer writes here.
pub const PRODUCER: usize = LINE;
/// Line of the consumer: only the consumer writes here.
pub const CONSUMER: usize = 2 * LINE;
/// In both lines: the writer's index, bytes since the start, wrapping at 2^32.
pub const INDEX: usize = 0x00;
/// In both lines: the writer's event index, as in Xen's ring.h: the index at which to notify it.
pub const EVENT_INDEX: usize = 0x04;
/// In both lines: close flags.
pub const STATE: usize = 0x08;
/// In the consumer's line: the largest message that it takes, in bytes.
pub const LIMIT: usize = 0x0c;

/// Flag of the producer's state: nothing more will be written after the index published before it.
pub const STATE_FIN: u32 = 1;
/// Flag of the consumer's state: nothing more will be read.
pub const STATE_GONE: u32 = 1;

/// Offset of the tip's live byte, in the tx control page only. Unmap-notify zeroes it.
pub const LIVE_TIP: usize = 3 * LINE;
/// Offset of the nock's live byte, in the tx control page only. Unmap-notify zeroes it.
pub const LIVE_NOCK: usize = 4 * LINE;

/// Distance from an end's line to the line of its counters, which only it writes either.
pub const COUNTERS: usize = 4 * LINE;

/// Offset of the list of grant references of the data pages.
pub const GREFS: usize = 0x400;

/// Bytes of a record header.
pub const HEADER: u32 = 8;
/// Bytes of the header of a FIRST record, which also has the total.
pub const HEADER_FIRST: u32 = 16;

/// The kind of a record. Exactly one flag is set; all other bits are reserved and zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A message in one record.
    Whole = 1,
    /// The beginning of a message; a second header word states its total.
    First = 2,
    /// A further part, not the last.
    More = 4,
    /// The last part.
    Last = 8,
    /// The sender gave up the message in progress: drop it.
    Abort = 16,
}

/// The header word: length of the payload below, flags above. One 64-bit word, so that one load
/// takes a consistent copy of both.
pub const fn header(kind: Kind, length: u32) -> u64 {
    (kind as u64) << 32 | length as u64
}

/// `bytes` rounded up to the alignment of records. The caller's value is at most a ring.
pub(crate) const fn padded(bytes: u32) -> u32 {
    bytes.next_multiple_of(RECORD_ALIGN as u32)
}

/// An event index that no index reaches within the next 2 GiB: "do not notify".
///
/// Not the own index itself: the peer compares with all that it has announced since its last
/// comparison, which can reach back beyond this index.
pub(crate) const fn never(index: u32) -> u32 {
    index.wrapping_add(1 << 31) & !(RECORD_ALIGN as u32 - 1)
}

const _: () = {
    assert!(HEADER_NONCE + 8 <= LINE && HEADER_NONCE.is_multiple_of(8));
    assert!(PRODUCER + COUNTERS >= LIVE_NOCK + LINE);
    assert!(CONSUMER + COUNTERS + LINE <= GREFS);
    assert!(GREFS + 4 * (1 << ORDER_MAX) <= PAGE);
    // Distances are compared modulo 2^32: a ring must stay far below half of that.
    assert!(PAGE << ORDER_MAX < 1 << 31);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_length_then_flags_in_memory() {
        assert_eq!(
            header(Kind::Last, 0x0102_0304).to_le_bytes(),
            [4, 3, 2, 1, 8, 0, 0, 0]
        );
    }

    #[test]
    fn padding() {
        assert_eq!([0, 1, 7, 8, 9].map(padded), [0, 8, 8, 8, 16]);
    }
}
