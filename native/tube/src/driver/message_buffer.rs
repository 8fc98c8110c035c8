//! The message that was just copied out of the ring, on its way to somebody in the VM.

use crate::buffer::Buffer;
use std::mem::MaybeUninit;
use tube_link::{Buffer as _, Fragment, MessageSink};

/// Takes messages: up to `ON_HAND` bytes to one place, from which the VM copies them, longer ones to a
/// binary that the VM keeps as it is.
///
/// Never handed to the VM from the ring itself: it sizes a message, and then reads the same bytes again.
pub struct MessageBuffer<const ON_HAND: usize> {
    taken: Taken,
    hand: Box<[MaybeUninit<u8>; ON_HAND]>,
}

enum Taken {
    /// So many bytes in `hand`.
    Hand(usize),
    Binary(Buffer),
}

/// A message that was taken.
pub enum Whole<'a> {
    /// To be copied.
    Copied(&'a [u8]),
    /// To be kept.
    Kept(Buffer),
}

impl<const ON_HAND: usize> MessageBuffer<ON_HAND> {
    /// With nothing in it.
    pub fn new() -> Self {
        MessageBuffer {
            taken: Taken::Hand(0),
            hand: Box::new([MaybeUninit::uninit(); ON_HAND]),
        }
    }

    /// What the last `take` has left here.
    pub fn whole(&mut self) -> Whole<'_> {
        match std::mem::replace(&mut self.taken, Taken::Hand(0)) {
            Taken::Hand(len) => {
                let bytes = self.hand.as_ptr().cast();
                // SAFETY: `take` has filled so many, or there are none.
                Whole::Copied(unsafe { std::slice::from_raw_parts(bytes, len) })
            }
            Taken::Binary(binary) => Whole::Kept(binary),
        }
    }
}

impl<const ON_HAND: usize> MessageSink for MessageBuffer<ON_HAND> {
    fn room(&mut self, len: usize) -> bool {
        self.taken = if len <= ON_HAND {
            Taken::Hand(len)
        } else {
            match Buffer::new(len) {
                Some(binary) => Taken::Binary(binary),
                None => return false,
            }
        };
        true
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        match &mut self.taken {
            Taken::Hand(len) => bytes.copy_to(&mut self.hand[..*len]),
            Taken::Binary(binary) => bytes.copy_to(binary.room()),
        };
    }
}
