//! The header of the control page, and the live bytes.

use crate::layout::{
    CONSUMER, EVENT_INDEX, FEATURES, FEATURES_REQUIRED, GREFS, HEADER_COUNT, HEADER_DIRECTION,
    HEADER_FEATURES, HEADER_MAGIC, HEADER_NONCE, HEADER_ORDER, HEADER_VERSION, INDEX, LIMIT,
    LIVE_NOCK, LIVE_TIP, MAGIC, ORDER_MAX, PRODUCER, STATE, VERSION, never,
};
use crate::memory::Ordering::{Acquire, Relaxed, Release};
use crate::{ControlPage, Violation};

/// The ring that a control page belongs to, from the tip's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Direction {
    /// The tip writes, the nock reads.
    Tx = 1,
    /// The nock writes, the tip reads.
    Rx = 2,
}

/// The two parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accepts the open request: owns the pages.
    Tip,
    /// Sends the open request: maps the pages.
    Nock,
}

/// State of a live byte, numbered as libxenvchan does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Live {
    /// Has unmapped the pages, or its kernel has.
    Gone = 0,
    /// Has the pages mapped.
    Here = 1,
    /// Has not mapped the pages yet.
    Awaited = 2,
}

/// The header of a checked control page: a private copy, never read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Data pages are 2^order, 0..=[`ORDER_MAX`].
    pub order: u32,
    /// Feature bits that the owner offers; this version knows the required ones.
    pub features: u32,
    /// Grant references of the data pages, in order.
    pub grefs: Vec<u32>,
}

impl ControlPage {
    /// Owner: writes the header of a fresh ring: no end waits, nothing is written, the nock is
    /// awaited. The page must be zeroed, and its reference not yet published.
    ///
    /// # Panics
    /// If `order` is above [`ORDER_MAX`] or the number of `grefs` is not 2^order.
    pub fn initialise(&self, direction: Direction, order: u32, nonce: u64, grefs: &[u32]) {
        assert!(order <= ORDER_MAX, "ring order {order}");
        assert_eq!(grefs.len(), 1 << order, "one reference per data page");
        for (i, &gref) in grefs.iter().enumerate() {
            self.store(GREFS + 4 * i, gref, Relaxed);
        }
        for line in [PRODUCER, CONSUMER] {
            self.store(line + INDEX, 0, Relaxed);
            self.store(line + EVENT_INDEX, never(0), Relaxed);
            self.store(line + STATE, 0, Relaxed);
        }
        self.store(CONSUMER + LIMIT, 0, Relaxed);
        if direction == Direction::Tx {
            self.set_live(Role::Tip, Live::Here);
            self.set_live(Role::Nock, Live::Awaited);
        }
        self.store(HEADER_VERSION, VERSION, Relaxed);
        self.store(HEADER_FEATURES, FEATURES, Relaxed);
        self.store(HEADER_DIRECTION, direction as u32, Relaxed);
        self.store(HEADER_ORDER, order, Relaxed);
        self.store(HEADER_COUNT, 1 << order, Relaxed);
        self.store(HEADER_NONCE, nonce as u32, Relaxed);
        self.store(HEADER_NONCE + 4, (nonce >> 32) as u32, Relaxed);
        // Last: a peer that sees the magic sees the rest.
        self.store(HEADER_MAGIC, MAGIC, Release);
    }

    /// Mapper: copies the header, each word loaded once, and checks the copy.
    ///
    /// # Errors
    /// The first impossible field, in the order of the layout. [`Violation::Nonce`] can also be an
    /// honest peer's page of an earlier attempt, which ends this one just the same.
    pub fn check(&self, direction: Direction, nonce: u64) -> Result<Geometry, Violation> {
        let magic = self.load(HEADER_MAGIC, Acquire);
        if magic != MAGIC {
            return Err(Violation::Magic(magic));
        }
        let version = self.load(HEADER_VERSION, Relaxed);
        if version != VERSION {
            return Err(Violation::Version(version));
        }
        let features = self.load(HEADER_FEATURES, Relaxed);
        if features & FEATURES_REQUIRED & !FEATURES != 0 {
            return Err(Violation::Features(features));
        }
        let found = self.load(HEADER_DIRECTION, Relaxed);
        if found != direction as u32 {
            return Err(Violation::Direction(found));
        }
        let order = self.load(HEADER_ORDER, Relaxed);
        if order > ORDER_MAX {
            return Err(Violation::Order(order));
        }
        let count = self.load(HEADER_COUNT, Relaxed);
        if count != 1 << order {
            return Err(Violation::Count(count));
        }
        let low = self.load(HEADER_NONCE, Relaxed);
        let high = self.load(HEADER_NONCE + 4, Relaxed);
        if u64::from(high) << 32 | u64::from(low) != nonce {
            return Err(Violation::Nonce);
        }
        let grefs = (0..1usize << order)
            .map(|i| self.load(GREFS + 4 * i, Relaxed))
            .collect();
        Ok(Geometry {
            order,
            features,
            grefs,
        })
    }

    /// The live byte of `role`, in a tx control page.
    ///
    /// # Errors
    /// [`Violation::Live`] for a value that is none of the three.
    pub fn live(&self, role: Role) -> Result<Live, Violation> {
        match self.load_live(live_offset(role)) {
            0 => Ok(Live::Gone),
            1 => Ok(Live::Here),
            2 => Ok(Live::Awaited),
            other => Err(Violation::Live(other)),
        }
    }

    /// Sets the own live byte: the nock when it has mapped the pages, either end when it leaves.
    pub fn set_live(&self, role: Role, live: Live) {
        self.store_live(live_offset(role), live as u8);
    }
}

fn live_offset(role: Role) -> usize {
    match role {
        Role::Tip => LIVE_TIP,
        Role::Nock => LIVE_NOCK,
    }
}
