//! Event channels: libxenevtchn, with one handle, and so one descriptor, per channel.
//!
//! The kernel delivers pending port numbers through the descriptor on which the ports were bound,
//! and masks each port until its number is written back. With one port per descriptor, readable
//! means that this port is pending, and the queue cannot overflow.

use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::errno;
use super::library::{self, Logger};
use super::missing::Missing;
use crate::{Ack, Domid, Error, EventChannel};

library::functions! {
    /// The functions used here, as tools/include/xenevtchn.h declares them.
    Functions: "libxenevtchn.so.1", "no_libxenevtchn", "libxenevtchn1";
    fn xenevtchn_open(*mut Logger, c_uint) -> *mut c_void;
    fn xenevtchn_close(*mut c_void) -> c_int;
    fn xenevtchn_fd(*mut c_void) -> c_int;
    fn xenevtchn_bind_unbound_port(*mut c_void, u32) -> c_int;
    fn xenevtchn_bind_interdomain(*mut c_void, u32, u32) -> c_int;
    fn xenevtchn_notify(*mut c_void, u32) -> c_int;
    fn xenevtchn_pending(*mut c_void) -> c_int;
    fn xenevtchn_unmask(*mut c_void, u32) -> c_int;
}

/// libxenevtchn, loaded.
pub(super) struct Evtchn {
    functions: Arc<Functions>,
}

impl Evtchn {
    pub(super) fn load() -> Result<Self, Missing> {
        Functions::load().map(Self::new)
    }

    fn new(functions: Functions) -> Self {
        Self {
            functions: Arc::new(functions),
        }
    }

    pub(super) fn alloc(&self, peer: Domid) -> Result<Channel, Error> {
        let handle = self.open()?;
        // SAFETY: the handle is open.
        let port = unsafe {
            (self.functions.xenevtchn_bind_unbound_port)(handle.raw.as_ptr(), peer.into())
        };
        handle.bound(port, || format!("allocating a port for domain {peer}"))
    }

    pub(super) fn bind(&self, peer: Domid, remote_port: u32) -> Result<Channel, Error> {
        let handle = self.open()?;
        // SAFETY: the handle is open.
        let port = unsafe {
            (self.functions.xenevtchn_bind_interdomain)(
                handle.raw.as_ptr(),
                peer.into(),
                remote_port,
            )
        };
        handle.bound(port, || {
            format!("binding to port {remote_port} of domain {peer}")
        })
    }

    fn open(&self) -> Result<Handle, Error> {
        let functions = Arc::clone(&self.functions);
        // SAFETY: the logger is static; flags 0 are the defaults, which include close-on-exec.
        let raw = unsafe { (functions.xenevtchn_open)(library::silent(), 0) };
        let raw =
            NonNull::new(raw).ok_or_else(|| Error::posix(errno(), "opening /dev/xen/evtchn"))?;
        let handle = Handle { functions, raw };
        // No other process shares this description, so it stays non-blocking.
        let failed = |errno| Error::posix(errno, "making /dev/xen/evtchn non-blocking");
        let fd = handle.fd();
        // SAFETY: the descriptor is the handle's, which is open.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let flags = fcntl_getfl(fd).map_err(failed)?;
        fcntl_setfl(fd, flags | OFlags::NONBLOCK).map_err(failed)?;
        Ok(handle)
    }
}

/// An open `/dev/xen/evtchn`. Closing it unbinds its port.
struct Handle {
    functions: Arc<Functions>,
    raw: NonNull<c_void>,
}

impl Handle {
    fn fd(&self) -> RawFd {
        // SAFETY: the handle is open.
        unsafe { (self.functions.xenevtchn_fd)(self.raw.as_ptr()) }
    }

    fn bound(self, port: c_int, doing: impl FnOnce() -> String) -> Result<Channel, Error> {
        match u32::try_from(port) {
            Ok(port) => Ok(Channel {
                fd: self.fd(),
                handle: self,
                port,
            }),
            Err(_negative) => Err(Error::posix(errno(), doing())),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and this is its only owner.
        unsafe { (self.functions.xenevtchn_close)(self.raw.as_ptr()) };
    }
}

// SAFETY: on Linux a handle is a logger, which is ours, and a descriptor. The calls made on it are
// ioctl, read and write of one word each, which any thread may make; nothing in the handle changes
// between open and close.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// One end of an event channel.
pub(super) struct Channel {
    handle: Handle,
    fd: RawFd,
    port: u32,
}

impl EventChannel for Channel {
    fn port(&self) -> u32 {
        self.port
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it is the handle's, which the borrow of `self` keeps open.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    fn notify(&self) -> Result<(), Error> {
        let handle = &self.handle;
        // SAFETY: the handle is open.
        match unsafe { (handle.functions.xenevtchn_notify)(handle.raw.as_ptr(), self.port) } {
            0 => Ok(()),
            _ => Err(Error::posix(errno(), "notifying")),
        }
    }

    /// Xen sends no event when the other end closes. To detect that, check the live byte in the
    /// page and the peer's nodes in xenstore.
    fn acknowledge(&self) -> Result<Ack, Error> {
        let handle = &self.handle;
        // SAFETY: the handle is open.
        let pending = unsafe { (handle.functions.xenevtchn_pending)(handle.raw.as_ptr()) };
        let Ok(port) = u32::try_from(pending) else {
            return match errno() {
                Errno::AGAIN | Errno::INTR => Ok(Ack::Open),
                errno => Err(Error::posix(errno, "acknowledging")),
            };
        };
        // SAFETY: the handle is open.
        match unsafe { (handle.functions.xenevtchn_unmask)(handle.raw.as_ptr(), port) } {
            0 => Ok(Ack::Open),
            _ => Err(Error::posix(errno(), "unmasking")),
        }
    }
}

#[cfg(test)]
mod tests;
