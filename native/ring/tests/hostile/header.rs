//! A hostile tip against a nock before the ring is in use, and impossible live bytes.

use std::sync::atomic::Ordering;

use tube_ring::wire::{
    FEATURES_REQUIRED, GREFS, HEADER_COUNT, HEADER_DIRECTION, HEADER_FEATURES, HEADER_MAGIC,
    HEADER_NONCE, HEADER_ORDER, HEADER_VERSION, LIVE_NOCK, LIVE_TIP,
};
use tube_ring::{Direction, Role, Violation};

use crate::support::{NONCE, Pages};

#[test]
fn a_header_with_one_wrong_word_is_refused() {
    let cases: &[(usize, u32, Violation)] = &[
        (HEADER_MAGIC, 0, Violation::Magic(0)),
        (
            HEADER_MAGIC,
            u32::from_be_bytes(*b"Tube"),
            Violation::Magic(u32::from_be_bytes(*b"Tube")),
        ),
        (HEADER_VERSION, 0, Violation::Version(0)),
        (HEADER_VERSION, 2, Violation::Version(2)),
        (HEADER_FEATURES, 1, Violation::Features(1)),
        (
            HEADER_FEATURES,
            0xffff_8000,
            Violation::Features(0xffff_8000),
        ),
        (HEADER_DIRECTION, 0, Violation::Direction(0)),
        (HEADER_DIRECTION, 2, Violation::Direction(2)),
        (HEADER_ORDER, 9, Violation::Order(9)),
        (HEADER_ORDER, 32, Violation::Order(32)),
        (HEADER_ORDER, u32::MAX, Violation::Order(u32::MAX)),
        (HEADER_ORDER, 1, Violation::Count(4)),
        (HEADER_COUNT, 0, Violation::Count(0)),
        (HEADER_COUNT, 257, Violation::Count(257)),
        (HEADER_NONCE, 2, Violation::Nonce),
        (HEADER_NONCE + 4, 0, Violation::Nonce),
    ];
    for &(offset, value, violation) in cases {
        let pages = Pages::new(2);
        pages.set(offset, value);
        assert_eq!(pages.control().check(Direction::Tx, NONCE), Err(violation));
    }
}

#[test]
fn optional_features_are_ignored() {
    let pages = Pages::new(0);
    pages.set(HEADER_FEATURES, !FEATURES_REQUIRED);
    assert_eq!(
        pages
            .control()
            .check(Direction::Tx, NONCE)
            .unwrap()
            .features,
        !FEATURES_REQUIRED
    );
}

#[test]
fn a_checked_header_is_a_private_copy() {
    let pages = Pages::new(1);
    let geometry = pages.control().check(Direction::Tx, NONCE).unwrap();
    pages.set(HEADER_ORDER, 8);
    pages.set(GREFS, 999);
    assert_eq!((geometry.order, geometry.grefs), (1, vec![100, 101]));
}

#[test]
fn a_live_byte_has_three_values() {
    let pages = Pages::new(0);
    for (offset, role) in [(LIVE_TIP, Role::Tip), (LIVE_NOCK, Role::Nock)] {
        for value in 3..=255 {
            pages.control_byte(offset).store(value, Ordering::SeqCst);
            assert_eq!(pages.control().live(role), Err(Violation::Live(value)));
        }
    }
}
