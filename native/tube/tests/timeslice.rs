//! The part of a time slice that a call uses up.

#[path = "../src/nif/timeslice.rs"]
mod timeslice;

use timeslice::percent;

#[test]
fn short_calls_are_free_and_long_ones_count_by_their_work() {
    assert_eq!(percent(64, 1), 0);
    assert_eq!(percent((64 << 10) - 1, 127), 0);
    assert_eq!(percent(64 << 10, 0), 1);
    assert_eq!(percent(256 << 10, 1024), 12);
    assert_eq!(percent(usize::MAX, 0), 100);
}
