//! A guest's end of a xenstore ring, the page that a domain shares with xenstored.

use std::fs::File;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes in each direction.
const RING_SIZE: usize = 1024;

/// `struct xenstore_domain_interface` of `xs_wire.h`.
#[repr(C)]
struct Page {
    req: [AtomicU8; RING_SIZE],
    rsp: [AtomicU8; RING_SIZE],
    req_cons: AtomicU32,
    req_prod: AtomicU32,
    rsp_cons: AtomicU32,
    rsp_prod: AtomicU32,
}

/// The mapped page.
pub struct Ring {
    page: NonNull<Page>,
}

impl Ring {
    /// Creates the page as a file, which xenstored maps when the domain is introduced.
    pub fn create(path: &Path) -> Ring {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .unwrap();
        file.set_len(4096).unwrap();
        // SAFETY: a new mapping at an address that the kernel chooses overlaps no other mapping.
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
        // every field is atomic, so xenstored may change it at any time, and every bit pattern is
        // valid.
        unsafe { self.page.as_ref() }
    }

    /// Writes as much of `bytes` as there is room for. Returns the number of bytes written.
    pub fn put(&self, bytes: &[u8]) -> usize {
        let page = self.page();
        let prod = page.req_prod.load(Ordering::Relaxed);
        let used = prod.wrapping_sub(page.req_cons.load(Ordering::Acquire)) as usize;
        let count = bytes.len().min(RING_SIZE - used);
        for (at, byte) in bytes[..count].iter().enumerate() {
            page.req[(prod as usize + at) % RING_SIZE].store(*byte, Ordering::Relaxed);
        }
        page.req_prod
            .store(prod.wrapping_add(count as u32), Ordering::Release);
        count
    }

    /// Appends all available bytes to `into`. Returns their number.
    pub fn take(&self, into: &mut Vec<u8>) -> usize {
        let page = self.page();
        let cons = page.rsp_cons.load(Ordering::Relaxed);
        let count = page.rsp_prod.load(Ordering::Acquire).wrapping_sub(cons) as usize;
        for at in 0..count {
            into.push(page.rsp[(cons as usize + at) % RING_SIZE].load(Ordering::Relaxed));
        }
        page.rsp_cons
            .store(cons.wrapping_add(count as u32), Ordering::Release);
        count
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: `create` made the mapping with this length, and no reference to it is left.
        let _ = unsafe { munmap(self.page.as_ptr().cast(), 4096) };
    }
}
