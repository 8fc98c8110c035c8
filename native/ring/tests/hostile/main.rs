//! Every impossible value that a peer can write is a violation, detected before it is used: no
//! panic, no access outside the ring, no endless loop.
#![cfg(not(loom))]

mod consumer;
mod header;
mod producer;
#[path = "../support/mod.rs"]
mod support;

use tube_ring::{Consumer, Pull, Violation};

/// The indices of these tests wrap on the way.
const START: u32 = 0u32.wrapping_sub(64);
const LIMIT_BYTES: u32 = 10_000;

/// The index `offset` bytes after the start.
fn at(offset: u32) -> u32 {
    START.wrapping_add(offset)
}

/// Pulls until there is no more progress, in a bounded number of calls.
fn drain(consumer: &mut Consumer) -> Result<Pull, Violation> {
    let mut message = Vec::new();
    for _ in 0..10_000 {
        match consumer.pull(&mut message, 1000)? {
            Pull::Message(_) | Pull::Partial(_) | Pull::Aborted => {}
            outcome => return Ok(outcome),
        }
    }
    panic!("no end");
}
