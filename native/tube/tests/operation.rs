//! The operations of a link's port.

#[path = "../src/driver/operation.rs"]
mod operation;

use operation::Operation;
use tube_link::{Active, LinkError};

const ACTIVE: u32 = 0x5455_0002;
const CUT: u32 = 0x5455_0006;

#[test]
fn an_active_value_is_a_signed_integer_of_four_bytes() {
    for (value, active) in [
        (0, Active::Passive),
        (-1, Active::Always),
        (-2, Active::Once),
        (1, Active::Count(1)),
        (i32::MAX, Active::Count(i32::MAX as u32)),
    ] {
        let decoded = Operation::decode(ACTIVE, &value.to_le_bytes());
        assert_eq!(decoded, Some(Operation::Active(active)));
    }
    for wrong in [&(-3_i32).to_le_bytes()[..], &[], &[1, 0, 0]] {
        assert_eq!(Operation::decode(ACTIVE, wrong), Some(Operation::Invalid));
    }
}

#[test]
fn a_cut_has_a_reason() {
    for (byte, operation) in [
        (0, Operation::Cut(LinkError::PeerDown)),
        (1, Operation::Cut(LinkError::DomainGone)),
        (2, Operation::Cut(LinkError::Suspended)),
        (3, Operation::Suspend),
        (4, Operation::Invalid),
    ] {
        assert_eq!(Operation::decode(CUT, &[byte]), Some(operation));
    }
    assert_eq!(Operation::decode(CUT, &[]), None);
}

#[test]
fn operations_of_other_drivers_are_unknown() {
    for code in [0, 1, 2, 0x5455_0000, 0x5455_0003, 0x5455_0008, u32::MAX] {
        assert_eq!(Operation::decode(code, &[]), None);
    }
    // None of those without a value takes one.
    for code in [0x5455_0001, 0x5455_0004, 0x5455_0005, 0x5455_0007] {
        assert!(Operation::decode(code, &[]).is_some());
        assert_eq!(Operation::decode(code, &[0]), None);
    }
}

#[test]
fn a_distribution_controller_cannot_be_made_active() {
    let active = Operation::Active(Active::Always);
    let passive = Operation::Active(Active::Passive);
    assert!(active.fits(false) && !active.fits(true));
    assert!(passive.fits(false) && passive.fits(true));
    for operation in [Operation::DistInput, Operation::DistTick] {
        assert!(operation.fits(true) && !operation.fits(false));
    }
}
