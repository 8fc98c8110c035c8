//! What the end of a ring stands on: shared pages, until they have to go, then memory of our own.

use crate::channel::Channel;
use crate::memory::SharedPages;
use std::ptr::NonNull;
use std::sync::Arc;
use tube_ring::{ControlPage, DataArea, PAGE, Violation};

/// The ground of one half of a link.
pub(crate) enum Backing {
    /// The pages of the link, which both halves hold.
    Shared(Arc<SharedPages>),
    /// A ring of this half alone.
    Own {
        channel: Arc<Channel>,
        _ring: PrivateRing,
    },
}

impl Backing {
    pub(crate) fn channel(&self) -> &Arc<Channel> {
        match self {
            Backing::Shared(memory) => memory.channel(),
            Backing::Own { channel, .. } => channel,
        }
    }

    /// Has the other end let go of its pages? Who has left its own does not ask any more.
    pub(crate) fn peer_gone(&self) -> Result<bool, Violation> {
        match self {
            Backing::Shared(memory) => memory.peer_gone(),
            Backing::Own { .. } => Ok(true),
        }
    }

    /// Is it the peer's memory that we have mapped?
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self, Backing::Shared(memory) if memory.is_foreign())
    }

    /// Calls `go` with a ring of our own of `bytes`, to move the end that stands here to; then lets go of
    /// the shared pages, which are unmapped with the last half that does. Nothing is done a second time.
    pub(crate) fn leave(&mut self, bytes: usize, go: impl FnOnce(ControlPage, DataArea)) {
        let Backing::Shared(memory) = self else {
            return;
        };
        let mut block = PrivateRing::new(bytes);
        // SAFETY: once for this block, which the ground keeps from here on, and the end that `go` moves is
        // dropped before its ground (order of the fields of each half).
        let (control, area) = unsafe { block.parts() };
        go(control, area);
        *self = Backing::Own {
            channel: memory.channel().clone(),
            _ring: block,
        };
    }
}

/// Private memory in the shape of a ring: a control page and data pages, zeroed.
pub(crate) struct PrivateRing {
    // Words, because a ring wants its pages aligned to eight bytes.
    words: Vec<u64>,
}

impl PrivateRing {
    fn new(bytes: usize) -> PrivateRing {
        PrivateRing {
            words: vec![0; (PAGE + bytes) / size_of::<u64>()],
        }
    }

    /// # Safety
    /// Once per block. What it gives must be gone before the block.
    unsafe fn parts(&mut self) -> (ControlPage, DataArea) {
        let bytes = self.words.len() * size_of::<u64>() - PAGE;
        let base = NonNull::from(self.words.as_mut_slice()).cast::<u8>();
        // SAFETY: a page and then `bytes`, a power of two of pages since that is the size of a ring, aligned
        // to eight; the vector is never touched again, so they stay where they are until it is dropped.
        unsafe {
            let area = DataArea::from_raw(base.add(PAGE), (bytes / PAGE).ilog2());
            (ControlPage::from_raw(base), area)
        }
    }
}
