//! The platform of one Linux host: domains are processes, and `tube-hub` plays
//! hypervisor and xenstored for them.

mod attach;
mod evtchn;
pub mod fdpass;
mod grants;
mod mapping;
pub mod memfd;
pub mod proto;
mod service;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{Shutdown, SocketType, shutdown};

use crate::platform::check_domid;
use crate::{Access, Domid, Error, EventChannel, Gref, Notify, Pages, Platform};
use evtchn::{Evtchn, UnmapNotify};
use grants::Grants;
use service::Service;

/// Membership of a virtual domain.
///
/// Dropping it leaves the domain at once, even while descriptors of
/// [`life`](Platform::life) are open. Pages and channels that outlive it stay
/// usable: after set-up nothing goes through the hub.
pub struct Local {
    domid: Domid,
    /// The domain's own directory.
    dir: PathBuf,
    control: OwnedFd,
    grants: Arc<Grants>,
    evtchn: Arc<Evtchn>,
}

impl Local {
    /// Becomes domain `domid`, or the lowest free one from 1, at the hub of a
    /// run directory. `run` may also be one domain's own `dom<N>` directory,
    /// for a process that sees no more than that.
    ///
    /// # Errors
    /// - `BadRunDir`: not a directory, or one in which another user could have
    ///   put the sockets.
    /// - `ENOENT`, `ECONNREFUSED`: no hub runs there; one may be started.
    /// - `NotAHub`, `HubVersion`, `HubGone`, `ETIMEDOUT`: something answers, or
    ///   should have, but not as a hub of our version.
    /// - `DomidTaken`; `EINVAL` for a domid that no domain can have.
    pub fn attach(run: &Path, domid: Option<Domid>) -> Result<Self, Error> {
        domid.map_or(Ok(()), check_domid)?;
        let attach::Attached {
            domid,
            dir,
            control,
        } = attach::attach(run, domid)?;
        let service = |name, socket| {
            let socket = attach::dial(&dir, socket, SocketType::SEQPACKET)?;
            Ok::<_, Error>(Service::new(name, socket))
        };
        Ok(Self {
            grants: Arc::new(Grants::new(service("grants", "grants.sock")?)),
            evtchn: Arc::new(Evtchn::new(service("event channels", "evtchn.sock")?)),
            domid,
            dir,
            control,
        })
    }

    fn unmap_notify(
        &self,
        notify: Option<Notify>,
        access: Access,
    ) -> Result<Option<UnmapNotify>, Error> {
        notify
            .map(|notify| UnmapNotify::new(notify, access, &self.evtchn))
            .transpose()
    }
}

impl Platform for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn domid(&self) -> Domid {
        self.domid
    }

    fn share(
        &self,
        peer: Domid,
        pages: usize,
        access: Access,
        notify: Option<Notify>,
    ) -> Result<Pages, Error> {
        check_domid(peer)?;
        // Our own mapping is writable whatever the peer may do.
        let unmap_notify = self.unmap_notify(notify, Access::ReadWrite)?;
        self.grants.share(peer, pages, access, unmap_notify)
    }

    fn map(
        &self,
        peer: Domid,
        refs: &[Gref],
        access: Access,
        notify: Option<Notify>,
    ) -> Result<Pages, Error> {
        check_domid(peer)?;
        let unmap_notify = self.unmap_notify(notify, access)?;
        self.grants.map(peer, refs, access, unmap_notify)
    }

    fn evtchn_unbound(&self, peer: Domid) -> Result<Box<dyn EventChannel>, Error> {
        check_domid(peer)?;
        Ok(Box::new(self.evtchn.alloc(peer)?))
    }

    fn evtchn_bind(&self, peer: Domid, port: u32) -> Result<Box<dyn EventChannel>, Error> {
        check_domid(peer)?;
        Ok(Box::new(self.evtchn.bind(peer, port)?))
    }

    fn xenbus(&self) -> Result<OwnedFd, Error> {
        attach::dial(&self.dir, "xenstored.sock", SocketType::STREAM)
    }

    fn life(&self) -> Result<OwnedFd, Error> {
        fcntl_dupfd_cloexec(&self.control, 0)
            .map_err(|errno| Error::posix(errno, "duplicating the control connection"))
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Closing our descriptor would leave the domain alive through others of
        // the same connection. A hub that is gone already is no failure.
        let _ = shutdown(&self.control, Shutdown::Both);
    }
}
