//! Cancels the message of a sender that dies before the whole message is in the ring. The rest
//! would never come, and no other process could send. The monitor exists only while a message is
//! partly in the ring.

use super::notifier::NifNotifier;
use crate::handles::{self, LinkSlot};
use crate::pid::Pid;
use rustler::{Env, LocalPid, Monitor, Resource, ResourceArc};
use std::sync::{MutexGuard, PoisonError};

/// A monitor on the sender of an unfinished message.
pub struct SenderMonitor {
    sender: Pid,
    resource: ResourceArc<Sending>,
    monitor: Monitor,
}

/// The resource whose down callback runs when the sender dies.
struct Sending {
    id: u64,
}

#[rustler::resource_impl]
impl Resource for Sending {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, env: Env<'a>, sender: LocalPid, _monitor: Monitor) {
        if let Some(slot) = handles::link(self.id) {
            cancel(env, self.id, &slot, Pid::from_nif(sender));
        }
    }
}

/// Adds or removes the monitor of the calling process: its message was partly in the ring before
/// this call (`before`), and is now (`after`).
pub fn update(env: Env<'_>, id: u64, slot: &LinkSlot, before: bool, after: bool) {
    match (before, after) {
        (false, true) => {
            let resource = ResourceArc::new(Sending { id });
            match env.monitor(&resource, &env.pid()) {
                Some(monitor) => {
                    let sender = Pid::caller(env);
                    *lock(slot) = Some(SenderMonitor {
                        sender,
                        resource,
                        monitor,
                    });
                }
                // Another thread is ending the process while it makes this call.
                None => cancel(env, id, slot, Pid::caller(env)),
            }
        }
        (true, false) => {
            if let Some(ours) = take(slot, Pid::caller(env)) {
                env.demonitor(&ours.resource, &ours.monitor);
            }
        }
        _ => {}
    }
}

/// Drops the monitor of a link that closes.
pub fn forget(slot: &LinkSlot) {
    drop(lock(slot).take());
}

fn cancel(env: Env<'_>, id: u64, slot: &LinkSlot, sender: Pid) {
    drop(take(slot, sender));
    // An error means that the link was closed meanwhile: then there is nothing to cancel.
    _ = slot.link.cancel(sender, &NifNotifier::new(env, id, slot));
}

/// Takes the monitor of `sender` only: the next sender may already have set its own.
fn take(slot: &LinkSlot, sender: Pid) -> Option<SenderMonitor> {
    lock(slot).take_if(|monitor| monitor.sender == sender)
}

fn lock(slot: &LinkSlot) -> MutexGuard<'_, Option<SenderMonitor>> {
    let monitor = slot.sender_monitor.lock();
    monitor.unwrap_or_else(PoisonError::into_inner)
}
