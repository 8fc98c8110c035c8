//! Shared pages: libxengnttab, whose two halves share pages (gntshr) and map them (gnttab).
//!
//! The kernel ties a grant to the mapping of the page, not to a descriptor: both end with `munmap`,
//! and so with the process. If the peer still has the page mapped by then, the kernel frees it only
//! when the peer unmaps it.

use std::ffi::{c_int, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::mm::ProtFlags;

use super::errno;
use super::library::{self, Logger};
use super::missing::Missing;
use crate::{Access, Domid, Error, Gref, Notify, Pages};

/// Most pages per call, 16 MiB. A request near the size of the whole grant table (32,768 entries)
/// fails and corrupts Linux's free list: afterwards no process of the domain can share a page (seen
/// with Linux 6.1).
const PAGES_MAX: usize = 4096;

library::functions! {
    /// The functions used here, as tools/include/xengnttab.h declares them.
    Functions: "libxengnttab.so.1", "no_libxengnttab", "libxengnttab1";
    fn xengntshr_open(*mut Logger, c_uint) -> *mut c_void;
    fn xengntshr_close(*mut c_void) -> c_int;
    fn xengntshr_fd(*mut c_void) -> c_int;
    fn xengntshr_share_pages(*mut c_void, u32, c_int, *mut Gref, c_int) -> *mut c_void;
    fn xengntshr_share_page_notify(*mut c_void, u32, *mut Gref, c_int, u32, u32) -> *mut c_void;
    fn xengntshr_unshare(*mut c_void, *mut c_void, u32) -> c_int;
    fn xengnttab_open(*mut Logger, c_uint) -> *mut c_void;
    fn xengnttab_close(*mut c_void) -> c_int;
    fn xengnttab_map_domain_grant_refs(*mut c_void, u32, u32, *mut Gref, c_int) -> *mut c_void;
    fn xengnttab_map_grant_ref_notify(*mut c_void, u32, Gref, c_int, u32, u32) -> *mut c_void;
    fn xengnttab_unmap(*mut c_void, *mut c_void, u32) -> c_int;
}

/// Both devices, open.
pub(super) struct Grants {
    functions: Functions,
    gntshr: NonNull<c_void>,
    gnttab: NonNull<c_void>,
}

// SAFETY: on Linux a handle of either kind is a logger, which is ours, and a descriptor. The calls
// made on it are ioctl and mmap, which any thread may make; nothing in the handle changes between
// open and close.
unsafe impl Send for Grants {}
// SAFETY: as above.
unsafe impl Sync for Grants {}

impl Grants {
    pub(super) fn load() -> Result<Functions, Missing> {
        Functions::load()
    }

    pub(super) fn open(functions: Functions) -> Result<Self, Error> {
        // SAFETY: the logger is static; flags 0 are the defaults.
        let gntshr = unsafe { (functions.xengntshr_open)(library::silent(), 0) };
        let gntshr = NonNull::new(gntshr)
            .ok_or_else(|| Error::posix(errno(), "opening /dev/xen/gntalloc"))?;
        // SAFETY: as above.
        let gnttab = unsafe { (functions.xengnttab_open)(library::silent(), 0) };
        let Some(gnttab) = NonNull::new(gnttab) else {
            let error = Error::posix(errno(), "opening /dev/xen/gntdev");
            // SAFETY: it was opened above, and nothing is shared on it.
            unsafe { (functions.xengntshr_close)(gntshr.as_ptr()) };
            return Err(error);
        };
        let grants = Self {
            functions,
            gntshr,
            gnttab,
        };
        grants.exclude_from_children();
        Ok(grants)
    }

    /// Sets close-on-exec, which the library omits for gntalloc (and, up to Xen 4.22, for gntdev).
    /// A child could do no harm with the descriptor, but has no use for it.
    fn exclude_from_children(&self) {
        // SAFETY: the handle is open, and so is its descriptor during the call.
        unsafe {
            let fd = (self.functions.xengntshr_fd)(self.gntshr.as_ptr());
            if fd >= 0 {
                let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
                _ = fcntl_setfd(fd, FdFlags::CLOEXEC);
            }
        }
    }

    pub(super) fn share(
        self: &Arc<Self>,
        peer: Domid,
        pages: usize,
        access: Access,
        notify: Option<Notify>,
    ) -> Result<Pages, Error> {
        let count = count(pages)?;
        check_notify(notify, pages, Access::ReadWrite)?;
        let writable = (access == Access::ReadWrite).into();
        let mut refs = vec![0; pages];
        let (at, handle) = (refs.as_mut_ptr(), self.gntshr.as_ptr());
        // SAFETY: there is room for `pages` references, and the handle is open.
        let start = unsafe {
            match notify {
                None => (self.functions.xengntshr_share_pages)(
                    handle,
                    peer.into(),
                    count as c_int,
                    at,
                    writable,
                ),
                Some(Notify { offset, port }) => (self.functions.xengntshr_share_page_notify)(
                    handle,
                    peer.into(),
                    at,
                    writable,
                    offset as u32,
                    port,
                ),
            }
        };
        self.pages(start, refs, Kind::Shared).map_err(|errno| {
            Error::posix(errno, format!("sharing {pages} pages with domain {peer}"))
        })
    }

    pub(super) fn map(
        self: &Arc<Self>,
        peer: Domid,
        refs: &[Gref],
        access: Access,
        notify: Option<Notify>,
    ) -> Result<Pages, Error> {
        let count = count(refs.len())?;
        check_notify(notify, refs.len(), access)?;
        let prot = match access {
            Access::ReadOnly => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        let prot = prot.bits() as c_int;
        let mut refs = refs.to_vec();
        let handle = self.gnttab.as_ptr();
        // SAFETY: `refs` has `count` references, which the library only reads; the handle is open.
        let start = unsafe {
            match notify {
                None => (self.functions.xengnttab_map_domain_grant_refs)(
                    handle,
                    count,
                    peer.into(),
                    refs.as_mut_ptr(),
                    prot,
                ),
                Some(Notify { offset, port }) => (self.functions.xengnttab_map_grant_ref_notify)(
                    handle,
                    peer.into(),
                    refs[0],
                    prot,
                    offset as u32,
                    port,
                ),
            }
        };
        self.pages(start, refs, Kind::Mapped)
            .map_err(|errno| Error::posix(errno, format!("mapping {count} pages of domain {peer}")))
    }

    /// Wraps `start`, which the library returned for `refs`.
    fn pages(
        self: &Arc<Self>,
        start: *mut c_void,
        refs: Vec<Gref>,
        kind: Kind,
    ) -> Result<Pages, Errno> {
        let start = NonNull::new(start).ok_or_else(errno)?;
        let keeper = Keeper {
            grants: Arc::clone(self),
            start,
            count: refs.len() as u32,
            kind,
        };
        // SAFETY: the library mapped one page per reference, contiguously and page-aligned, and
        // they stay mapped until the keeper is dropped. They are pages of this machine: a peer
        // cannot take them away.
        Ok(unsafe { Pages::from_raw(start.cast(), refs, Box::new(keeper)) })
    }
}

impl Drop for Grants {
    fn drop(&mut self) {
        // SAFETY: both were opened in `open`; every mapping holds an `Arc` of this value, so none
        // is left.
        unsafe {
            (self.functions.xengntshr_close)(self.gntshr.as_ptr());
            (self.functions.xengnttab_close)(self.gnttab.as_ptr());
        }
    }
}

enum Kind {
    Shared,
    Mapped,
}

/// Ends a mapping when dropped.
struct Keeper {
    grants: Arc<Grants>,
    start: NonNull<c_void>,
    count: u32,
    kind: Kind,
}

// SAFETY: an address range and the handle, neither tied to a thread.
unsafe impl Send for Keeper {}
// SAFETY: `&Keeper` has no methods.
unsafe impl Sync for Keeper {}

impl Drop for Keeper {
    fn drop(&mut self) {
        let (functions, start) = (&self.grants.functions, self.start.as_ptr());
        // SAFETY: exactly what the library mapped; `Pages`, the only holder of a pointer into it,
        // is being dropped with this.
        let ended = unsafe {
            match self.kind {
                Kind::Shared => {
                    (functions.xengntshr_unshare)(self.grants.gntshr.as_ptr(), start, self.count)
                }
                Kind::Mapped => {
                    (functions.xengnttab_unmap)(self.grants.gnttab.as_ptr(), start, self.count)
                }
            }
        };
        debug_assert_eq!(ended, 0, "unmapping our own pages: {}", errno());
    }
}

fn count(pages: usize) -> Result<u32, Error> {
    match pages {
        1..=PAGES_MAX => Ok(pages as u32),
        _ => Err(Error::invalid(format!(
            "cannot share or map {pages} pages in one call: 1 to {PAGES_MAX}"
        ))),
    }
}

/// The C interface has a notify byte only for a mapping of one page.
fn check_notify(notify: Option<Notify>, pages: usize, access: Access) -> Result<(), Error> {
    let Some(notify) = notify else {
        return Ok(());
    };
    notify.check(access)?;
    if pages != 1 {
        return Err(Error::invalid(
            "on Xen, only a mapping of one page can have a notify byte",
        ));
    }
    // The library takes all ones to mean "no event".
    if notify.port == u32::MAX {
        return Err(Error::invalid("no such event channel to notify"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
