//! Descriptors that the VM polls. One may be closed only after the VM has let go of it, which it says by
//! `stop_select`, perhaps from another thread and after the port is gone. Until then its owner is parked
//! here, so that no earlier drop can close it and let the number be used for something else.

use crate::sys;
use std::any::Any;
use std::collections::HashMap;
use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

type Owner = Arc<dyn Any + Send + Sync>;

static PARKED: LazyLock<Mutex<HashMap<RawFd, Owner>>> = LazyLock::new(Mutex::default);

/// A descriptor under the VM's poll. Dropping it only asks the VM to stop.
#[derive(Debug)]
pub struct SelectedFd {
    port: sys::Port,
    fd: RawFd,
}

impl SelectedFd {
    /// Has the VM poll `fd` for `port` to read from, and keeps `owner`, which closes it when dropped.
    ///
    /// # Safety
    /// In a callback of `port`, which must outlive the result.
    pub unsafe fn new(port: sys::Port, fd: RawFd, owner: Owner) -> Option<SelectedFd> {
        parked().insert(fd, owner);
        // SAFETY: the caller's promise; the descriptor is open as long as it is parked.
        match unsafe { sys::driver_select(port, fd as sys::Event, sys::READ | sys::USE, 1) } {
            0 => Some(SelectedFd { port, fd }),
            _ => {
                parked().remove(&fd);
                None
            }
        }
    }

    /// Switches polling for one direction on or off.
    pub fn poll(&self, mode: c_int, on: bool) {
        // SAFETY: the port lives, by the promise made to `new`, and only its callbacks have `self`.
        unsafe { sys::driver_select(self.port, self.fd as sys::Event, mode, on.into()) };
    }
}

impl Drop for SelectedFd {
    fn drop(&mut self) {
        self.poll(sys::READ | sys::WRITE | sys::USE, false);
    }
}

/// The driver's `stop_select`: the VM will not touch the descriptor again.
pub fn release(event: sys::Event) {
    let owner = parked().remove(&(event as RawFd));
    // Not under the lock: this may close the descriptor, and its number may be parked again at once.
    drop(owner);
}

fn parked() -> MutexGuard<'static, HashMap<RawFd, Owner>> {
    PARKED.lock().unwrap_or_else(PoisonError::into_inner)
}
