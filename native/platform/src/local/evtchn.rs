//! Event channels made of two pipes, one per direction.
//!
//! A notification is one byte. The hub creates the pipes and sets them non-blocking. Each side
//! holds the only description of its ends, so no peer can make ours blocking. (An eventfd would be
//! one description for both sides, and `O_NONBLOCK` is a property of the description.) Exclusive
//! ends also turn a peer's death into an end of file.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::{Errno, read, retry_on_intr, write};

use super::proto::{Reply, Request};
use super::service::Service;
use crate::{Access, Ack, Domid, Error, ErrorKind, EventChannel};

/// Most notifications consumed per acknowledgement. A peer that notifies without end costs one
/// system call per wake-up; the rest keeps the descriptor readable.
const ACKNOWLEDGE_MAX: usize = 1024;

/// Client of the hub's event channel service.
pub(super) struct Evtchn {
    service: Service,
    /// The open channels by port, for unmap-notify.
    channels: Mutex<HashMap<u32, Weak<Ends>>>,
}

impl Evtchn {
    pub(super) fn new(service: Service) -> Self {
        Self {
            service,
            channels: Mutex::default(),
        }
    }

    pub(super) fn alloc(self: &Arc<Self>, peer: Domid) -> Result<Channel, Error> {
        match self.service.call(&Request::Alloc { peer }, &[])? {
            (Reply::Alloc { port }, fds) => self.channel(port, fds),
            _ => Err(self.service.unexpected_reply()),
        }
    }

    pub(super) fn bind(
        self: &Arc<Self>,
        remote: Domid,
        remote_port: u32,
    ) -> Result<Channel, Error> {
        let bind = Request::Bind {
            remote,
            remote_port,
        };
        match self.service.call(&bind, &[])? {
            (Reply::Bind { port }, fds) => self.channel(port, fds),
            _ => Err(self.service.unexpected_reply()),
        }
    }

    /// The open channel with this port.
    pub(super) fn find(&self, port: u32) -> Option<Weak<Ends>> {
        self.channels().get(&port).cloned()
    }

    fn channel(self: &Arc<Self>, port: u32, fds: Vec<OwnedFd>) -> Result<Channel, Error> {
        let ends = <[OwnedFd; 2]>::try_from(fds)
            .ok()
            .map(|[read_end, write_end]| Ends {
                port,
                read_end,
                write_end,
            })
            .filter(|ends| {
                is_pipe_end(&ends.read_end, OFlags::RDONLY)
                    && is_pipe_end(&ends.write_end, OFlags::WRONLY)
            });
        let Some(ends) = ends else {
            self.service.send_notice(Request::Close { port });
            return Err(self.service.unexpected_reply());
        };
        let ends = Arc::new(ends);
        self.channels().insert(port, Arc::downgrade(&ends));
        Ok(Channel {
            ends,
            evtchn: Arc::clone(self),
        })
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<u32, Weak<Ends>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks what the hub promises: a non-blocking end of a pipe.
fn is_pipe_end(fd: &OwnedFd, mode: OFlags) -> bool {
    let pipe = fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    let flags = fcntl_getfl(fd).unwrap_or(OFlags::empty());
    pipe && flags.contains(OFlags::NONBLOCK) && flags & OFlags::RWMODE == mode
}

/// Our ends of the two pipes.
pub(super) struct Ends {
    port: u32,
    /// The peer's notifications arrive here.
    read_end: OwnedFd,
    /// Our notifications leave here.
    write_end: OwnedFd,
}

impl Ends {
    pub(super) fn notify(&self) -> Result<(), Error> {
        match retry_on_intr(|| write(&self.write_end, &[1])) {
            // A full pipe means that an event is pending.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(Errno::PIPE) => Err(Error::new(
                ErrorKind::PeerGone,
                format!("event channel {}: the peer has closed", self.port),
            )),
            Err(errno) => Err(Error::posix(errno, "notifying")),
        }
    }

    fn acknowledge(&self) -> Result<Ack, Error> {
        let mut buffer = [0; ACKNOWLEDGE_MAX];
        match retry_on_intr(|| read(&self.read_end, &mut buffer)) {
            Ok(0) => Ok(Ack::PeerGone),
            // Notifications first; the next call reports the end of file.
            Ok(_) | Err(Errno::AGAIN) => Ok(Ack::Open),
            Err(errno) => Err(Error::posix(errno, "acknowledging")),
        }
    }
}

/// One end of an event channel.
pub(super) struct Channel {
    ends: Arc<Ends>,
    evtchn: Arc<Evtchn>,
}

impl EventChannel for Channel {
    fn port(&self) -> u32 {
        self.ends.port
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.ends.read_end.as_fd()
    }

    fn notify(&self) -> Result<(), Error> {
        self.ends.notify()
    }

    fn acknowledge(&self) -> Result<Ack, Error> {
        self.ends.acknowledge()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let port = self.ends.port;
        self.evtchn.channels().remove(&port);
        self.evtchn.service.send_notice(Request::Close { port });
    }
}

/// What to do when a mapping ends: zero a byte and notify a channel.
pub(super) struct UnmapNotify {
    pub(super) offset: usize,
    /// Weak: if the channel is closed by then, the peer has seen its end of file.
    ends: Weak<Ends>,
}

impl UnmapNotify {
    /// Applies Xen's rules: the byte lies in page 0 of a writable mapping, and the port is ours.
    pub(super) fn new(
        notify: crate::Notify,
        access: Access,
        evtchn: &Evtchn,
    ) -> Result<Self, Error> {
        notify.check(access)?;
        let ends = evtchn
            .find(notify.port)
            .ok_or_else(|| Error::invalid("no such event channel to notify"))?;
        Ok(Self {
            offset: notify.offset,
            ends,
        })
    }

    pub(super) fn send(&self) {
        if let Some(ends) = self.ends.upgrade() {
            // No notification is needed if the peer has gone.
            let _ = ends.notify();
        }
    }
}
