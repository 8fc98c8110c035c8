//! Impossible values in shared memory.

use std::fmt;

/// The error of this crate: the peer wrote an impossible value to shared memory. It is broken or
/// hostile, and the tube must close with `:protocol`. The value is for a log; never use it for
/// anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// The page does not start with the magic word.
    Magic(u32),
    /// Another layout version.
    Version(u32),
    /// A required feature that this version does not know.
    Features(u32),
    /// The page belongs to the ring of the other direction.
    Direction(u32),
    /// The order is above [`ORDER_MAX`](crate::ORDER_MAX).
    Order(u32),
    /// The number of grant references is not 2^order.
    Count(u32),
    /// The page belongs to another attempt.
    Nonce,
    /// A live byte other than gone, here, awaited.
    Live(u8),
    /// The producer's index is unaligned, went back, or is more than a ring ahead.
    ProducerIndex(u32),
    /// The consumer's index is unaligned, went back, or is ahead of what was published.
    ConsumerIndex(u32),
    /// An unaligned event index.
    EventIndex(u32),
    /// Unknown close flags.
    State(u32),
    /// A message limit above [`MESSAGE_MAX`](crate::MESSAGE_MAX).
    Limit(u32),
    /// Record flags that are not exactly one kind of record.
    Flags(u32),
    /// A record that extends beyond the published index.
    Length(u32),
    /// A total that leaves nothing to send after its FIRST record, or has reserved bits set.
    Total(u64),
    /// A message longer than this consumer takes.
    TooLong(u32),
    /// A fragment of no bytes, which would be work without progress.
    EmptyFragment,
    /// Fragments that do not add up to the total: the sum in bytes.
    Sum(u64),
    /// A MORE, LAST or ABORT outside a message.
    NotBegun,
    /// A WHOLE or FIRST within a message.
    NotEnded,
    /// An index published after the end of data.
    AfterFin(u32),
    /// The end of data within a message.
    FinInMessage,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Magic(v) => write!(f, "not a control page: magic {v:#010x}"),
            Self::Version(v) => write!(f, "wire version {v}, not {}", crate::VERSION),
            Self::Features(v) => write!(f, "unknown required features {v:#010x}"),
            Self::Direction(v) => write!(f, "wrong ring direction {v}"),
            Self::Order(v) => write!(f, "ring order {v} above {}", crate::ORDER_MAX),
            Self::Count(v) => write!(f, "{v} grant references do not match the order"),
            Self::Nonce => write!(f, "control page of another attempt"),
            Self::Live(v) => write!(f, "live byte {v}"),
            Self::ProducerIndex(v) => write!(f, "impossible producer index {v:#010x}"),
            Self::ConsumerIndex(v) => write!(f, "impossible consumer index {v:#010x}"),
            Self::EventIndex(v) => write!(f, "impossible event index {v:#010x}"),
            Self::State(v) => write!(f, "unknown close flags {v:#010x}"),
            Self::Limit(v) => write!(f, "message limit {v} above {}", crate::MESSAGE_MAX),
            Self::Flags(v) => write!(f, "impossible record flags {v:#010x}"),
            Self::Length(v) => write!(f, "record of {v} bytes extends beyond the index"),
            Self::Total(v) => write!(f, "impossible message total {v:#x}"),
            Self::TooLong(v) => write!(f, "message of {v} bytes above the limit"),
            Self::EmptyFragment => write!(f, "fragment without bytes"),
            Self::Sum(v) => write!(f, "fragments of {v} bytes do not add up to the total"),
            Self::NotBegun => write!(f, "fragment outside a message"),
            Self::NotEnded => write!(f, "new message within a message"),
            Self::AfterFin(v) => write!(f, "index {v:#010x} published after the end of data"),
            Self::FinInMessage => write!(f, "end of data within a message"),
        }
    }
}

impl std::error::Error for Violation {}
