//! A mapping of shared pages.

use std::fmt;
use std::ptr::NonNull;

/// A grant reference: names one page within the domain that granted it.
pub type Gref = u32;

/// Bytes in a shared page, on every platform.
pub const PAGE: usize = 4096;

/// Owns a mapping of shared pages, our own or a peer's.
///
/// The peer may write the memory behind [`ptr`](Self::ptr) at any time, so this type gives no
/// slice. Access the memory through atomics, or copy each byte once, and never form a reference to
/// plain memory.
///
/// Dropping it zeroes the notify byte and sends the event (if a [`Notify`](crate::Notify) was
/// given), unmaps the pages, and ends the grant if they are our own. It never blocks.
pub struct Pages {
    ptr: NonNull<u8>,
    refs: Vec<Gref>,
    /// Unmaps when dropped.
    _keeper: Box<dyn Send + Sync>,
}

impl Pages {
    /// Wraps a mapping that `keeper` owns.
    ///
    /// # Safety
    /// `ptr` is page-aligned, `refs.len()` pages from it are mapped readable, and they stay mapped
    /// until `keeper` is dropped.
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

    /// The first byte, page-aligned. Writable unless mapped [`ReadOnly`](crate::Access::ReadOnly).
    pub fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Length in bytes: a whole number of pages.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a mapping has at least one page"
    )]
    pub fn len(&self) -> usize {
        self.refs.len() * PAGE
    }

    /// The grant reference of each page, in order.
    pub fn refs(&self) -> &[Gref] {
        &self.refs
    }
}

// SAFETY: the pointer is to memory shared between processes, not tied to a thread; the mapping
// lives in the keeper, which is `Send`.
unsafe impl Send for Pages {}
// SAFETY: `&Pages` gives out only the pointer and lengths; code that dereferences the pointer is
// responsible for that. The keeper is `Sync`.
unsafe impl Sync for Pages {}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("ptr", &self.ptr)
            .field("refs", &self.refs)
            .finish()
    }
}
