//! The message that was just copied out of the ring, on its way to a process or to the VM.

use crate::buffer::Buffer;
use std::mem::MaybeUninit;
use tube_link::{Buffer as _, Fragment, MessageSink};

/// Takes messages: up to `INLINE` bytes into itself, from where the VM copies them, longer ones
/// into a binary that the VM keeps as it is.
///
/// A message is never handed to the VM from the ring itself: the VM first sizes a message, then
/// reads the same bytes again, which the peer may have changed.
pub struct MessageBuffer<const INLINE: usize> {
    content: Content,
    inline: Box<[MaybeUninit<u8>; INLINE]>,
}

enum Content {
    /// So many bytes of `inline`.
    Inline(usize),
    Binary(Buffer),
}

/// A message, taken out of the ring.
pub enum Message<'a> {
    /// Bytes for the VM to copy.
    Inline(&'a [u8]),
    /// A binary for the VM to keep.
    Binary(Buffer),
}

impl<const INLINE: usize> MessageBuffer<INLINE> {
    /// An empty buffer.
    pub fn new() -> Self {
        MessageBuffer {
            content: Content::Inline(0),
            inline: Box::new([MaybeUninit::uninit(); INLINE]),
        }
    }

    /// The message that the last `take` copied here.
    pub fn message(&mut self) -> Message<'_> {
        match std::mem::replace(&mut self.content, Content::Inline(0)) {
            Content::Inline(len) => {
                let bytes = self.inline.as_ptr().cast();
                // SAFETY: `take` has filled so many, or there are none.
                Message::Inline(unsafe { std::slice::from_raw_parts(bytes, len) })
            }
            Content::Binary(binary) => Message::Binary(binary),
        }
    }
}

impl<const INLINE: usize> MessageSink for MessageBuffer<INLINE> {
    fn room(&mut self, len: usize) -> bool {
        self.content = if len <= INLINE {
            Content::Inline(len)
        } else {
            match Buffer::new(len) {
                Some(binary) => Content::Binary(binary),
                None => return false,
            }
        };
        true
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        match &mut self.content {
            Content::Inline(len) => bytes.copy_to(&mut self.inline[..*len]),
            Content::Binary(binary) => bytes.copy_to(binary.room()),
        };
    }
}
