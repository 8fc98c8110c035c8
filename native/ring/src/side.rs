//! Wake-up indices: who must ring, and when.

use crate::Violation;
use crate::layout::RECORD_ALIGN;

/// The outcome of announcing a wish to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "`notify` means that the peer sleeps and must be rung; `ready` that one must not sleep"]
pub struct Armed {
    /// There is something to do already: do not sleep, try again. The mark has been withdrawn.
    pub ready: bool,
    /// The peer waits for what this call published: ring the bell.
    pub notify: bool,
}

/// Bytes that are moved at most before the other end, if it is awake, is shown them: big enough for
/// memcpy speed, small enough that one end copies while the other does.
pub(crate) const STRIDE: u32 = 64 << 10;

/// [`STRIDE`], or a quarter of a small ring.
pub(crate) const fn stride(size: u32) -> u32 {
    if size / 4 < STRIDE { size / 4 } else { STRIDE }
}

/// A mark that no index reaches within the next 2 GiB: "do not ring".
///
/// Not the own index itself: the peer compares with all that it has published since it last
/// compared, and that may well reach back beyond this index.
pub(crate) const fn nowhere_near(index: u32) -> u32 {
    index.wrapping_add(1 << 31) & !(RECORD_ALIGN as u32 - 1)
}

/// What was published and not yet compared with the peer's mark.
#[derive(Debug, Default)]
pub(crate) struct Pending(u32);

impl Pending {
    /// Notes that the published index moved on by `bytes`.
    pub(crate) fn add(&mut self, bytes: u32) {
        self.0 = self.0.saturating_add(bytes);
    }

    /// Whether nothing moved since the last comparison.
    pub(crate) fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Whether the steps noted, which ended at `index`, reached the peer's `mark`: then it must be
    /// rung. Forgets them.
    ///
    /// As in Xen's ring.h: the mark lies in (old, new], compared modulo 2^32. A stale mark is
    /// therefore met again after 4 GiB, and the one bell too many does no harm.
    #[inline]
    pub(crate) fn reached(&mut self, mark: u32, index: u32) -> Result<bool, Violation> {
        if !mark.is_multiple_of(RECORD_ALIGN as u32) {
            return Err(Violation::Mark(mark));
        }
        let moved = std::mem::take(&mut self.0);
        // Saturated means more than a lap since the last comparison: every aligned mark was met.
        Ok(index.wrapping_sub(mark) < moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(old: u32, new: u32, mark: u32) -> bool {
        let mut pending = Pending::default();
        pending.add(new.wrapping_sub(old));
        pending.reached(mark, new).unwrap()
    }

    #[test]
    fn the_mark_is_met_from_just_above_old_to_new() {
        for start in [0u32, 0xffff_ffc0, 0x7fff_fff0, 0xffff_fff8] {
            let at = |offset: u32| start.wrapping_add(offset);
            assert!(!reached(start, at(24), at(0)));
            assert!(reached(start, at(24), at(8)));
            assert!(reached(start, at(24), at(24)));
            assert!(!reached(start, at(24), at(32)));
            assert!(!reached(start, at(24), start.wrapping_sub(8)));
            assert!(!reached(start, at(1 << 20), nowhere_near(start)));
            assert!(!reached(start, start, at(8)));
        }
    }

    #[test]
    fn a_lap_without_comparison_rings_in_doubt() {
        let mut pending = Pending::default();
        pending.add(1 << 31);
        pending.add(1 << 31);
        assert_eq!(pending.reached(8, 0), Ok(true));
        assert!(pending.is_empty());
    }

    #[test]
    fn an_unaligned_mark_cannot_be() {
        let mut pending = Pending::default();
        pending.add(8);
        assert_eq!(pending.reached(4, 8), Err(Violation::Mark(4)));
    }
}
