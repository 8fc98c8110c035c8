//! The operations of `port_control` on a link's port, as `Tube.Native.Driver` encodes them.

use tube_link::{Active, LinkError};

// The same table is in lib/tube/native/driver.ex; test/tube/native/driver_test.exs compares both.
const START: u32 = 0x5455_0001;
const ACTIVE: u32 = 0x5455_0002;
const DIST_INPUT: u32 = 0x5455_0004;
const DIST_TICK: u32 = 0x5455_0005;
const CUT: u32 = 0x5455_0006;
const DELIVER: u32 = 0x5455_0007;

/// One operation, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Start the flow of data.
    Start,
    /// Set which messages are delivered unasked.
    Active(Active),
    /// Deliver what has arrived.
    Deliver,
    /// Hand the peer's packets to the VM.
    DistInput,
    /// Send an empty packet.
    DistTick,
    /// Unmap all that is shared with the peer, for this reason.
    Cut(LinkError),
    /// Note that the machine is about to be suspended.
    Suspend,
    /// A known operation with a value that it does not take.
    Invalid,
}

impl Operation {
    /// Decodes the operation `code` with its `data`. `None` if this driver has no such operation.
    pub fn decode(code: u32, data: &[u8]) -> Option<Operation> {
        Some(match (code, data) {
            (START, []) => Operation::Start,
            (ACTIVE, data) => active(data).map_or(Operation::Invalid, Operation::Active),
            (DELIVER, []) => Operation::Deliver,
            (DIST_INPUT, []) => Operation::DistInput,
            (DIST_TICK, []) => Operation::DistTick,
            (CUT, [0]) => Operation::Cut(LinkError::PeerDown),
            (CUT, [1]) => Operation::Cut(LinkError::DomainGone),
            (CUT, [2]) => Operation::Cut(LinkError::Suspended),
            (CUT, [3]) => Operation::Suspend,
            (CUT, [_]) => Operation::Invalid,
            _ => return None,
        })
    }

    /// Whether a port takes this operation: one that carries a distribution connection (`dist`), or
    /// another.
    pub fn fits(self, dist: bool) -> bool {
        match self {
            Operation::DistInput | Operation::DistTick => dist,
            // A distribution controller is passive until its input starts, and active from then on.
            Operation::Active(active) => !dist || active == Active::Passive,
            _ => true,
        }
    }
}

/// Four little-endian bytes: see `Tube.Native.Driver.active/2`.
fn active(data: &[u8]) -> Option<Active> {
    match i32::from_le_bytes(data.try_into().ok()?) {
        0 => Some(Active::Passive),
        -1 => Some(Active::Always),
        -2 => Some(Active::Once),
        count => u32::try_from(count).ok().map(Active::Count),
    }
}
