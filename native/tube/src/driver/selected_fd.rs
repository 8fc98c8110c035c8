//! Descriptors that the VM polls. A descriptor may be closed only after the VM has released it,
//! which `stop_select` reports, perhaps on another thread and after the port is gone. Until then
//! its owner is kept here, so that the descriptor cannot be closed and its number reused.

use crate::sys;
use std::any::Any;
use std::collections::HashMap;
use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

type Owner = Arc<dyn Any + Send + Sync>;

static OWNERS: LazyLock<Mutex<HashMap<RawFd, Owner>>> = LazyLock::new(Mutex::default);

/// A descriptor that the VM polls. Dropping this only asks the VM to stop.
pub struct SelectedFd {
    port: sys::Port,
    fd: RawFd,
}

impl SelectedFd {
    /// Makes the VM poll `fd` for input to `port`, and keeps `owner`, which closes `fd` when
    /// dropped.
    ///
    /// # Safety
    /// In a callback of `port`, which must outlive the result.
    pub unsafe fn new(port: sys::Port, fd: RawFd, owner: Owner) -> Option<SelectedFd> {
        owners().insert(fd, owner);
        // SAFETY: the caller's promise; the descriptor stays open as long as `OWNERS` has its
        // owner.
        match unsafe { sys::driver_select(port, fd as sys::Event, sys::READ | sys::USE, 1) } {
            0 => Some(SelectedFd { port, fd }),
            _ => {
                owners().remove(&fd);
                None
            }
        }
    }

    /// Switches polling for one direction on or off.
    pub fn poll(&self, mode: c_int, on: bool) {
        // SAFETY: the port lives, as `new` was promised, and only its callbacks use `self`.
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
    let owner = owners().remove(&(event as RawFd));
    // Outside the lock: this may close the descriptor, and its number may be inserted again at
    // once.
    drop(owner);
}

fn owners() -> MutexGuard<'static, HashMap<RawFd, Owner>> {
    OWNERS.lock().unwrap_or_else(PoisonError::into_inner)
}
