//! A guest's end of a xenstore ring: the page that a domain shares with xenstored.

use std::fs::File;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes in each direction.
const RING: usize = 1024;

/// `struct xenstore_domain_interface` of `xs_wire.h`.
#[repr(C)]
struct Page {
    requests: [AtomicU8; RING],
    answers: [AtomicU8; RING],
    requests_taken: AtomicU32,
    requests_put: AtomicU32,
    answers_taken: AtomicU32,
    answers_put: AtomicU32,
}

/// The mapped page.
pub struct Ring {
    page: NonNull<Page>,
}

impl Ring {
    /// Makes the page, as a file that xenstored maps when the domain is introduced.
    pub fn create(path: &Path) -> Ring {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .unwrap();
        file.set_len(4096).unwrap();
        // SAFETY: a new shared mapping at an address of the kernel's choice disturbs nothing.
        let page = unsafe {
            mmap(
                std::ptr::null_mut(),
                4096,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        };
        Ring {
            page: NonNull::new(page.unwrap().cast()).unwrap(),
        }
    }

    fn page(&self) -> &Page {
        // SAFETY: the mapping is larger than a `Page`, aligned to 4096 and lives as long as `self`;
        // every field is atomic, so the other side may change it at any time, and every bit pattern
        // is valid.
        unsafe { self.page.as_ref() }
    }

    /// Puts as much of `bytes` as there is room for; how much that was.
    pub fn put(&self, bytes: &[u8]) -> usize {
        let page = self.page();
        let put = page.requests_put.load(Ordering::Relaxed);
        let used = put.wrapping_sub(page.requests_taken.load(Ordering::Acquire)) as usize;
        let count = bytes.len().min(RING - used);
        for (at, byte) in bytes[..count].iter().enumerate() {
            page.requests[(put as usize + at) % RING].store(*byte, Ordering::Relaxed);
        }
        page.requests_put
            .store(put.wrapping_add(count as u32), Ordering::Release);
        count
    }

    /// Takes all that is there.
    pub fn take(&self, into: &mut Vec<u8>) -> usize {
        let page = self.page();
        let taken = page.answers_taken.load(Ordering::Relaxed);
        let count = page.answers_put.load(Ordering::Acquire).wrapping_sub(taken) as usize;
        for at in 0..count {
            into.push(page.answers[(taken as usize + at) % RING].load(Ordering::Relaxed));
        }
        page.answers_taken
            .store(taken.wrapping_add(count as u32), Ordering::Release);
        count
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `create` with this length, and nothing refers to it any
        // more.
        let _ = unsafe { munmap(self.page.as_ptr().cast(), 4096) };
    }
}
