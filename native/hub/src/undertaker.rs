//! Closes what came from clients, where it does not matter how long that takes.
//!
//! The last close of a file of a FUSE file system waits for the process behind it; that of a
//! TCP connection may linger for hours. A client can send us such a descriptor, or leave it
//! unread in the queue of a connection that we close: so neither is ever closed by the event
//! loop.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::net::Shutdown;
use tube_platform::Domid;

/// Descriptors of one domain that may wait to be closed. With that many, nothing more is taken
/// from that domain.
const WAITING: usize = 64;

/// Per domain, so that a domain makes nobody wait but itself. A domain is in the map as long
/// as a thread works for it.
type Graves = Arc<Mutex<HashMap<Domid, Grave>>>;

#[derive(Debug, Default)]
struct Grave {
    queue: VecDeque<OwnedFd>,
    /// Those in the queue and the one being closed.
    waiting: usize,
}

/// Threads that close, each for one domain and only while there is something to close.
#[derive(Debug, Default)]
pub struct Undertaker {
    graves: Graves,
}

impl Undertaker {
    /// Closes descriptors on account of a domain, at some time.
    pub fn bury(&self, domid: Domid, fds: impl IntoIterator<Item = OwnedFd>) {
        let mut graves = lock(&self.graves);
        let grave = graves.entry(domid).or_default();
        let idle = grave.waiting == 0;
        grave.queue.extend(fds);
        grave.waiting = grave.queue.len() + usize::from(!idle);
        if grave.waiting == 0 {
            graves.remove(&domid);
        } else if idle {
            let all = Arc::clone(&self.graves);
            if thread::Builder::new()
                .spawn(move || dig(domid, &all))
                .is_err()
            {
                // No threads to be had on this host: then it has to be done here.
                graves.remove(&domid);
            }
        }
    }

    /// Ends a socket for whoever is at its other end, then closes it.
    pub fn bury_socket(&self, domid: Domid, socket: OwnedFd) {
        // Fails for one whose other end has closed.
        let _ = rustix::net::shutdown(&socket, Shutdown::Both);
        self.bury(domid, [socket]);
    }

    /// Whether a domain has left us more than can be closed.
    pub fn is_overrun(&self, domid: Domid) -> bool {
        lock(&self.graves)
            .get(&domid)
            .is_some_and(|grave| grave.waiting >= WAITING)
    }
}

fn dig(domid: Domid, graves: &Graves) {
    loop {
        let next = {
            let mut graves = lock(graves);
            let Some(grave) = graves.get_mut(&domid) else {
                return;
            };
            grave.waiting = grave.queue.len();
            match grave.queue.pop_front() {
                Some(fd) => fd,
                None => {
                    graves.remove(&domid);
                    return;
                }
            }
        };
        drop(next);
    }
}

fn lock(graves: &Graves) -> MutexGuard<'_, HashMap<Domid, Grave>> {
    // Whoever panicked with it left nothing half-done.
    graves.lock().unwrap_or_else(PoisonError::into_inner)
}
