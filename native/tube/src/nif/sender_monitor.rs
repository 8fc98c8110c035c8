//! Senders that die in the middle of a message. The rest of it will never come, and until somebody says
//! so nobody else can send. The monitor is there only while a message is partly in the ring.

use super::notifier::NifNotifier;
use crate::handles::{self, Entry, SenderMonitor};
use crate::pid::Pid;
use rustler::{Env, LocalPid, Monitor, Resource, ResourceArc};
use std::sync::{MutexGuard, PoisonError};

/// The resource whose monitor it is.
pub struct Sending {
    id: u64,
}

#[rustler::resource_impl]
impl Resource for Sending {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, env: Env<'a>, sender: LocalPid, _monitor: Monitor) {
        if let Some(entry) = handles::link(self.id) {
            cancel(env, self.id, &entry, Pid::from_nif(sender));
        }
    }
}

/// Watches the calling process while a message of its is partly in the ring: it `was` before this call,
/// it `is` now.
pub fn follow(env: Env<'_>, id: u64, entry: &Entry, was: bool, is: bool) {
    match (was, is) {
        (false, true) => {
            let resource = ResourceArc::new(Sending { id });
            match env.monitor(&resource, &env.pid()) {
                Some(monitor) => {
                    let sender = Pid::caller(env);
                    *lock(entry) = Some(SenderMonitor {
                        sender,
                        resource,
                        monitor,
                    });
                }
                // It is dying, on another thread, while it makes this call.
                None => cancel(env, id, entry, Pid::caller(env)),
            }
        }
        (true, false) => {
            if let Some(watch) = take(entry, Pid::caller(env)) {
                env.demonitor(&watch.resource, &watch.monitor);
            }
        }
        _ => {}
    }
}

fn cancel(env: Env<'_>, id: u64, entry: &Entry, sender: Pid) {
    drop(take(entry, sender));
    // Closed meanwhile: then there is nothing to end.
    _ = entry.link.cancel(sender, &NifNotifier::new(env, id, entry));
}

/// Only the own watch: the next sender may have begun, and be watched, before the last one looks.
fn take(entry: &Entry, sender: Pid) -> Option<SenderMonitor> {
    lock(entry).take_if(|watch| watch.sender == sender)
}

/// The link closes: nobody is watched any more.
pub fn forget(entry: &Entry) {
    drop(lock(entry).take());
}

fn lock(entry: &Entry) -> MutexGuard<'_, Option<SenderMonitor>> {
    entry.watch.lock().unwrap_or_else(PoisonError::into_inner)
}
