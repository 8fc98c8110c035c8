//! Closes descriptors that came from clients on background threads.
//!
//! The last close of a file on FUSE waits for the process that serves it, and that of a TCP
//! connection can linger for hours. A client can send such a descriptor, or leave it unread in the
//! queue of a socket, so the event loop closes neither descriptors from clients nor client sockets.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::net::Shutdown;
use tube_platform::Domid;

/// Pending closes of one domain at which the hub stops reading from that domain.
const MAX_PENDING: usize = 64;

/// One queue and one thread per domain, so that a domain delays only its own closes. A domain has
/// a queue while a thread works on it.
type Queues = Arc<Mutex<HashMap<Domid, Queue>>>;

#[derive(Debug, Default)]
struct Queue {
    fds: VecDeque<OwnedFd>,
    /// Descriptors in the queue, and the one being closed.
    pending: usize,
}

/// Closes descriptors on one thread per domain; a thread lives while its domain has some to close.
#[derive(Debug, Default)]
pub struct BackgroundCloser {
    queues: Queues,
}

impl BackgroundCloser {
    /// Queues descriptors of a domain to be closed.
    pub fn close(&self, domid: Domid, fds: impl IntoIterator<Item = OwnedFd>) {
        let mut queues = lock(&self.queues);
        let queue = queues.entry(domid).or_default();
        let idle = queue.pending == 0;
        queue.fds.extend(fds);
        queue.pending = queue.fds.len() + usize::from(!idle);
        if queue.pending == 0 {
            queues.remove(&domid);
        } else if idle {
            let all = Arc::clone(&self.queues);
            if thread::Builder::new()
                .spawn(move || close_all(domid, &all))
                .is_err()
            {
                // The host has no threads left: close them here.
                queues.remove(&domid);
            }
        }
    }

    /// Shuts a socket down, so that the peer sees the end at once, and queues it to be closed.
    pub fn close_socket(&self, domid: Domid, socket: OwnedFd) {
        // Fails if the peer has closed its end already.
        let _ = rustix::net::shutdown(&socket, Shutdown::Both);
        self.close(domid, [socket]);
    }

    /// Whether a domain has too many pending closes.
    pub fn is_full(&self, domid: Domid) -> bool {
        lock(&self.queues)
            .get(&domid)
            .is_some_and(|queue| queue.pending >= MAX_PENDING)
    }
}

/// The thread of one domain.
fn close_all(domid: Domid, queues: &Queues) {
    loop {
        let next = {
            let mut queues = lock(queues);
            let Some(queue) = queues.get_mut(&domid) else {
                return;
            };
            queue.pending = queue.fds.len();
            match queue.fds.pop_front() {
                Some(fd) => fd,
                None => {
                    queues.remove(&domid);
                    return;
                }
            }
        };
        drop(next);
    }
}

fn lock(queues: &Queues) -> MutexGuard<'_, HashMap<Domid, Queue>> {
    // A panic while it was locked cannot have left a queue inconsistent.
    queues.lock().unwrap_or_else(PoisonError::into_inner)
}
