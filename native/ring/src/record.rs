//! Records: the header word and its kinds.

use crate::Violation;
use crate::layout::RECORD_ALIGN;

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

impl Kind {
    fn from_flags(flags: u32) -> Result<Self, Violation> {
        Ok(match flags {
            1 => Self::Whole,
            2 => Self::First,
            4 => Self::More,
            8 => Self::Last,
            16 => Self::Abort,
            _ => return Err(Violation::Flags(flags)),
        })
    }
}

/// The header word: length of the payload below, flags above. One 64-bit word, so that one load
/// takes a consistent copy of both.
pub const fn header(kind: Kind, length: u32) -> u64 {
    (kind as u64) << 32 | length as u64
}

/// Splits a header word; does not check the length.
pub(crate) fn parse(word: u64) -> Result<(Kind, u32), Violation> {
    Ok((Kind::from_flags((word >> 32) as u32)?, word as u32))
}

/// `bytes` rounded up to the alignment of records. The caller's value is at most a ring.
pub(crate) const fn padded(bytes: u32) -> u32 {
    bytes.next_multiple_of(RECORD_ALIGN as u32)
}

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

    #[test]
    fn padding() {
        assert_eq!([0, 1, 7, 8, 9].map(padded), [0, 8, 8, 8, 16]);
    }
}
