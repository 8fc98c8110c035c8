//! A moment's patience in a stream. To sleep and to be rung costs either side many times what it takes the
//! other, which is at work, to go on by one message.

use crate::after::{After, Stop};
use tube_ring::Violation;

/// Bytes that an end has moved since it last slept, from which on it is in the middle of a stream.
pub(crate) const STREAM: u32 = 64 << 10;

/// So many looks, with a pause after each: about two microseconds.
const LOOKS: usize = 64;

/// Whether something is `there` in a moment. Not if the other end sleeps: it is rung only once the caller is
/// done.
pub(crate) fn linger<P>(
    after: &After<P>,
    mut there: impl FnMut() -> Result<bool, Violation>,
) -> Result<bool, Stop> {
    if after.ring {
        return Ok(false);
    }
    for _ in 0..LOOKS {
        if there()? {
            return Ok(true);
        }
        std::hint::spin_loop();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_until_it_is_there_and_not_for_ever() {
        for (there_at, found) in [(1, true), (LOOKS, true), (LOOKS + 1, false)] {
            let mut looks = 0;
            let look = || {
                looks += 1;
                Ok(looks == there_at)
            };
            assert_eq!(linger(&After::<()>::default(), look), Ok(found));
            assert_eq!(looks, there_at.min(LOOKS));
        }
    }

    #[test]
    fn does_not_wait_for_whom_the_caller_has_yet_to_ring() {
        let after = After::<()> {
            ring: true,
            ..After::default()
        };
        let never = || unreachable!("it sleeps");
        assert_eq!(linger(&after, never), Ok(false));
    }

    #[test]
    fn an_impossible_value_is_found_here_too() {
        let violated = || Err(Violation::State(7));
        assert_eq!(
            linger(&After::<()>::default(), violated),
            Err(Stop::Violated)
        );
    }
}
