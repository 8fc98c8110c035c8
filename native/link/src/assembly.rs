//! Messages on their way out of the ring: those in one piece straight to their last place, those in several
//! into a buffer.

use crate::vm::{Buffer, MessageSink};
use tube_ring::{Fragment, Sink};

/// Where the bytes of the message that is being pulled go.
pub(crate) struct Reassembly<B> {
    /// Messages up to this long are expected in one piece and need no buffer.
    inline: usize,
    pub buffer: Option<B>,
    total: usize,
    /// Bytes put there last.
    pub piece: usize,
    /// There was no memory for a short message in pieces. No honest peer sends such.
    pub short: bool,
}

impl<B: Buffer> Reassembly<B> {
    pub fn new(inline: usize) -> Reassembly<B> {
        Reassembly {
            inline,
            buffer: None,
            total: 0,
            piece: 0,
            short: false,
        }
    }

    fn make_room(&mut self) -> bool {
        self.buffer = B::new(self.total);
        self.buffer.is_some()
    }
}

/// The ring's view of it.
pub(crate) struct SinkAdapter<'a, B, S> {
    pub assembly: &'a mut Reassembly<B>,
    pub small: &'a mut S,
}

impl<B: Buffer, S: MessageSink> Sink for SinkAdapter<'_, B, S> {
    #[inline]
    fn begin(&mut self, total: usize) -> bool {
        self.assembly.total = total;
        if total <= self.assembly.inline {
            self.small.room(total)
        } else {
            self.assembly.make_room()
        }
    }

    #[inline]
    fn put(&mut self, offset: usize, bytes: Fragment<'_>) {
        let assembly = &mut *self.assembly;
        if assembly.buffer.is_none() {
            if bytes.len() == assembly.total {
                return self.small.take(bytes);
            }
            if assembly.short || !assembly.make_room() {
                assembly.short = true;
                return;
            }
        }
        if let Some(buffer) = &mut assembly.buffer {
            assembly.piece = bytes.len();
            let room = &mut buffer.room()[offset..][..bytes.len()];
            bytes.copy_to(room);
        }
    }

    fn discard(&mut self) {
        self.assembly.buffer = None;
    }
}
