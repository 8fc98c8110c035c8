//! A mapping of shared pages, and its end.

use std::fmt;
use std::ptr::NonNull;

/// Grant reference: names one page within the domain that granted it.
pub type Gref = u32;

/// Bytes in a shared page, on every platform.
pub const PAGE: usize = 4096;

/// Owns a mapping of shared pages, our own or a peer's.
///
/// What lies behind [`ptr`](Self::ptr) may change under our hands at any time:
/// the peer writes it. So there is no way to a slice here; whoever reads or
/// writes does so through atomics or by copying once, and never forms a
/// reference to plain memory.
///
/// Dropping it zeroes its notify byte and rings (if it was given a
/// [`Notify`](crate::Notify)), unmaps, and for our own pages ends the grant.
/// That never blocks.
pub struct Pages {
    ptr: NonNull<u8>,
    refs: Vec<Gref>,
    /// Unmaps when dropped.
    _keeper: Box<dyn Send + Sync>,
}

impl Pages {
    /// Wraps a mapping that someone else keeps.
    ///
    /// # Safety
    /// From `ptr`, which is page-aligned, `refs.len()` pages are mapped
    /// readable, and stay so until `keeper` has been dropped.
    pub unsafe fn from_raw(
        ptr: NonNull<u8>,
        refs: Vec<Gref>,
        keeper: Box<dyn Send + Sync>,
    ) -> Self {
        Self {
            ptr,
            refs,
            _keeper: keeper,
        }
    }

    /// The first byte, page-aligned. Writable unless mapped
    /// [`ReadOnly`](crate::Access::ReadOnly).
    pub fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Bytes: a whole number of pages.
    pub fn len(&self) -> usize {
        self.refs.len() * PAGE
    }

    /// Never: there is no mapping of no pages.
    pub fn is_empty(&self) -> bool {
        self.refs.is_empty()
    }

    /// The grant reference of each page, in order.
    pub fn refs(&self) -> &[Gref] {
        &self.refs
    }
}

// SAFETY: the pointer is to memory shared between processes, not tied to a
// thread; the mapping it points into lives in the keeper, which is `Send`.
unsafe impl Send for Pages {}
// SAFETY: `&Pages` gives out the pointer and lengths only; whoever dereferences
// the pointer answers for that. The keeper is `Sync`.
unsafe impl Sync for Pages {}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("ptr", &self.ptr)
            .field("refs", &self.refs)
            .finish()
    }
}
