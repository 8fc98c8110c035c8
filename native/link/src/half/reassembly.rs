//! Messages on their way out of the ring: those in one piece go straight to their destination,
//! those in several into a buffer.

use crate::vm::{Buffer, MessageSink};
use tube_ring::{Fragment, Sink};

/// The message being pulled.
pub(crate) struct Reassembly<B> {
    /// Messages up to this long are expected in one piece and need no buffer.
    inline: usize,
    pub(crate) buffer: Option<B>,
    total: usize,
    /// Bytes of the last piece.
    pub(crate) piece: usize,
    /// There was no memory for a short message in pieces. No honest peer sends one.
    pub(crate) no_memory: bool,
}

impl<B: Buffer> Reassembly<B> {
    pub(crate) fn new(inline: usize) -> Reassembly<B> {
        Reassembly {
            inline,
            buffer: None,
            total: 0,
            piece: 0,
            no_memory: false,
        }
    }

    fn make_room(&mut self) -> bool {
        self.buffer = B::new(self.total);
        self.buffer.is_some()
    }
}

/// A [`Reassembly`] as the sink of a ring.
pub(crate) struct SinkAdapter<'a, B, S> {
    pub(crate) reassembly: &'a mut Reassembly<B>,
    pub(crate) sink: &'a mut S,
}

impl<B: Buffer, S: MessageSink> Sink for SinkAdapter<'_, B, S> {
    #[inline]
    fn begin(&mut self, total: usize) -> bool {
        self.reassembly.total = total;
        if total <= self.reassembly.inline {
            self.sink.room(total)
        } else {
            self.reassembly.make_room()
        }
    }

    #[inline]
    fn put(&mut self, offset: usize, bytes: Fragment<'_>) {
        let reassembly = &mut *self.reassembly;
        if reassembly.buffer.is_none() {
            if bytes.len() == reassembly.total {
                return self.sink.take(bytes);
            }
            if reassembly.no_memory || !reassembly.make_room() {
                reassembly.no_memory = true;
                return;
            }
        }
        if let Some(buffer) = &mut reassembly.buffer {
            reassembly.piece = bytes.len();
            let room = &mut buffer.room()[offset..][..bytes.len()];
            bytes.copy_to(room);
        }
    }

    fn discard(&mut self) {
        self.reassembly.buffer = None;
    }
}
