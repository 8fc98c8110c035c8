//! The short way of short messages: a message in one piece, written because nothing stands in its way.
//!
//! [`Producer::push`] deals with every message and every state. What it answers is too large for registers,
//! and for a message of 64 bytes that costs more than to copy it; so those go through here first.

use super::Producer;
use crate::layout::HEADER;
use crate::record::{Kind, header, padded};
use crate::wake::STRIDE;

/// How far ahead of what is written cache lines are asked for. The reader's processor has them from the last
/// lap; it takes as long to get them from there as to write a few short messages.
const AHEAD: u32 = 512;
/// Longer messages keep their own stores busy enough.
const SHORT: u32 = 4096;

impl Producer {
    /// Writes a whole message, to be published. False: nothing was written, and [`push`](Self::push) says why
    /// or does it.
    #[inline]
    pub fn put(&mut self, message: &[u8]) -> bool {
        let limit = self
            .limit
            .unwrap_or(0)
            .min(STRIDE)
            .min(self.size / 2 - HEADER);
        if message.len() > limit as usize
            || self.open.is_some()
            || self.finished
            || self.gone
            || self.fault.is_some()
        {
            return false;
        }
        let length = message.len() as u32;
        let record = HEADER + padded(length);
        if self.free() < record && !matches!(self.room(record), Ok(room) if room >= record) {
            return false;
        }
        self.data
            .store_header(self.index, header(Kind::Whole, length));
        self.data.write(self.index.wrapping_add(HEADER), message);
        self.advance(record);
        self.complete(length);
        self.prepare(record);
        true
    }

    /// Has the place of the next message of this size brought here. Not if the reader may still read there.
    #[inline]
    fn prepare(&self, record: u32) {
        if record <= SHORT && self.free() >= AHEAD + record {
            self.data.prepare(self.index.wrapping_add(AHEAD), record);
        }
    }
}
