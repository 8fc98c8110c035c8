//! A contiguous stretch of address space put together from memfds.

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::{Access, PAGE};

/// Address space that is ours until dropped.
pub(super) struct Mapping {
    base: NonNull<c_void>,
    len: usize,
}

impl Mapping {
    /// Reserves room for `pages` pages, which cannot be touched until placed.
    pub(super) fn reserve(pages: usize) -> Result<Self, Errno> {
        let len = pages.checked_mul(PAGE).ok_or(Errno::INVAL)?;
        // SAFETY: a new anonymous mapping, at an address that the kernel
        // chooses, touches nothing that exists.
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

    /// Puts `pages` pages of a memfd, from its page `first`, at page `at` of
    /// this mapping, in the place of whatever was there.
    ///
    /// Nothing may use that part yet, which is why this wants `&mut self`. The
    /// memfd has been checked: touching the pages cannot fault.
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
        // SAFETY: the piece replaced lies wholly inside the range that this
        // value owns (checked above), so MAP_FIXED takes nobody else's memory;
        // `&mut self` means that nobody holds a pointer into it yet.
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

    /// Keeps the mapping out of child processes, as Xen's devices do: a child
    /// that lives on must not keep a dead tube's memory.
    pub(super) fn exclude_from_children(&self) -> Result<(), Errno> {
        // SAFETY: the range is ours, and the advice changes only what a later
        // fork copies; no Rust code relies on finding it in a child.
        unsafe { madvise(self.base.as_ptr(), self.len, Advice::LinuxDontFork) }
    }

    pub(super) fn ptr(&self) -> NonNull<u8> {
        self.base.cast()
    }

    /// Zeroes one byte, ordered after all that this thread did before. The
    /// mapping must be writable.
    pub(super) fn zero_byte(&self, offset: usize) {
        assert!(offset < self.len, "a notify byte is checked when taken");
        // SAFETY: inside our mapping (checked), which is writable and which the
        // peer cannot shrink; shared bytes are only accessed atomically.
        let byte = unsafe { AtomicU8::from_ptr(self.ptr().as_ptr().add(offset)) };
        byte.store(0, Ordering::SeqCst);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what was reserved; `Pages`, the only holder of a
        // pointer into it, is being dropped with us.
        let unmapped = unsafe { munmap(self.base.as_ptr(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of our own range: {unmapped:?}");
    }
}

// SAFETY: the pointer is to shared memory and not tied to a thread.
unsafe impl Send for Mapping {}
// SAFETY: through `&Mapping` one gets the address and an atomic store.
unsafe impl Sync for Mapping {}
