//! A contiguous range of address space, filled from memfds.

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::{Access, PAGE};

/// Owns the range until dropped.
pub(super) struct Mapping {
    base: NonNull<c_void>,
    len: usize,
}

impl Mapping {
    /// Reserves room for `pages` pages, which are inaccessible until placed.
    pub(super) fn reserve(pages: usize) -> Result<Self, Errno> {
        let len = pages.checked_mul(PAGE).ok_or(Errno::INVAL)?;
        // SAFETY: a new anonymous mapping, at an address that the kernel chooses, affects no
        // existing memory.
        let base = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let base = NonNull::new(base).ok_or(Errno::NOMEM)?;
        Ok(Self { base, len })
    }

    /// Maps `pages` pages of a memfd, from its page `first`, at page `at` of this mapping. They
    /// replace what was there.
    ///
    /// That part must not be in use yet, hence `&mut self`. The caller has checked the memfd:
    /// touching the pages cannot fault.
    pub(super) fn place(
        &mut self,
        at: usize,
        memfd: BorrowedFd<'_>,
        first: usize,
        pages: usize,
        access: Access,
    ) -> Result<(), Errno> {
        let inside = at.checked_add(pages).is_some_and(|end| {
            pages > 0 && end <= self.len / PAGE // whole pages only, so no overflow below
        });
        if !inside {
            return Err(Errno::INVAL);
        }
        let prot = match access {
            Access::ReadOnly => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: the replaced range lies within the range that this value owns (checked above), so
        // MAP_FIXED replaces no other memory; `&mut self` means that no pointer into it exists yet.
        unsafe {
            mmap(
                self.base.as_ptr().byte_add(at * PAGE),
                pages * PAGE,
                prot,
                MapFlags::SHARED | MapFlags::FIXED,
                memfd,
                (first * PAGE) as u64,
            )
        }?;
        Ok(())
    }

    /// Keeps the mapping out of child processes, as Xen's devices do: a long-lived child must not
    /// keep a dead tube's memory.
    pub(super) fn exclude_from_children(&self) -> Result<(), Errno> {
        // SAFETY: the range is ours, and the advice affects only what a later fork copies; no Rust
        // code expects the range in a child.
        unsafe { madvise(self.base.as_ptr(), self.len, Advice::LinuxDontFork) }
    }

    pub(super) fn ptr(&self) -> NonNull<u8> {
        self.base.cast()
    }

    /// Zeroes one byte, after all earlier accesses of this thread. The mapping must be writable.
    pub(super) fn zero_byte(&self, offset: usize) {
        assert!(offset < self.len, "the notify byte was checked");
        // SAFETY: inside our mapping (checked), which is writable and which the peer cannot shrink;
        // all accesses to shared bytes are atomic.
        let byte = unsafe { AtomicU8::from_ptr(self.ptr().as_ptr().add(offset)) };
        byte.store(0, Ordering::SeqCst);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the reserved range; `Pages`, the only holder of a pointer into it, is
        // being dropped with this.
        let unmapped = unsafe { munmap(self.base.as_ptr(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of our own range: {unmapped:?}");
    }
}

// SAFETY: the pointer is to shared memory and not tied to a thread.
unsafe impl Send for Mapping {}
// SAFETY: `&Mapping` gives out only the address and an atomic store.
unsafe impl Sync for Mapping {}
