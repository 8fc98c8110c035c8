//! A moment's patience in a stream. To sleep and to be rung costs either side many times what it takes the
//! other, which is at work, to go on by one message.

use crate::after::{Deferred, Fail};
use tube_ring::Violation;

/// Bytes that an end has moved since it last had nothing to do, from which on it is in the middle of a stream.
const STREAM: u32 = 64 << 10;

/// So many looks, with a pause after each: about five microseconds.
const LOOKS: usize = 192;
/// Where others wait for the one who looks: about two.
const FEW: usize = 64;

/// The patience of one end.
pub(crate) struct Spin {
    moved: u32,
    looks: usize,
}

impl Spin {
    pub(crate) fn new() -> Spin {
        Spin {
            moved: 0,
            looks: LOOKS,
        }
    }

    /// Others wait for the one who looks.
    pub(crate) fn be_brief(&mut self) {
        self.looks = FEW;
    }

    /// A message of so many bytes was moved.
    #[inline]
    pub(crate) fn moved(&mut self, bytes: u32) {
        self.moved = self.moved.saturating_add(bytes);
    }

    /// There is nothing to do: was that the middle of a stream? Asked once.
    pub(crate) fn is_due(&mut self) -> bool {
        std::mem::take(&mut self.moved) >= STREAM
    }

    /// Whether something is `there` in a moment. Not if the other end sleeps: it is rung only once the caller
    /// is done.
    pub(crate) fn look<P>(
        &self,
        after: &Deferred<P>,
        mut there: impl FnMut() -> Result<bool, Violation>,
    ) -> Result<bool, Fail> {
        if after.ring {
            return Ok(false);
        }
        for _ in 0..self.looks {
            if there()? {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_due_once_after_enough_bytes() {
        let mut linger = Spin::new();
        assert!(!linger.is_due());
        linger.moved(STREAM - 1);
        linger.moved(1);
        assert!(linger.is_due());
        assert!(!linger.is_due());
        linger.moved(STREAM - 1);
        assert!(!linger.is_due());
        linger.moved(1);
        assert!(!linger.is_due(), "bytes of before do not count");
        linger.moved(u32::MAX);
        linger.moved(1);
        assert!(linger.is_due());
    }

    #[test]
    fn looks_until_it_is_there_and_not_for_ever() {
        let mut linger = Spin::new();
        for looks in [LOOKS, FEW] {
            for (there_at, found) in [(1, true), (looks, true), (looks + 1, false)] {
                let mut looked = 0;
                let look = || {
                    looked += 1;
                    Ok(looked == there_at)
                };
                assert_eq!(linger.look(&Deferred::<()>::default(), look), Ok(found));
                assert_eq!(looked, there_at.min(looks));
            }
            linger.be_brief();
        }
    }

    #[test]
    fn does_not_wait_for_whom_the_caller_has_yet_to_ring() {
        let after = Deferred::<()> {
            ring: true,
            ..Deferred::default()
        };
        let never = || unreachable!("it sleeps");
        assert_eq!(Spin::new().look(&after, never), Ok(false));
    }

    #[test]
    fn an_impossible_value_is_found_here_too() {
        let violated = || Err(Violation::State(7));
        assert_eq!(
            Spin::new().look(&Deferred::<()>::default(), violated),
            Err(Fail::Violated)
        );
    }
}
