//! The platform of one Linux host: processes are the domains, and `tube-hub` acts as their
//! hypervisor and xenstored.

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
/// Dropping it leaves the domain at once, even if descriptors of [`life`](Platform::life) are still
/// open. Pages and channels that outlive it stay usable: after set-up they do not need the hub.
pub struct Local {
    domid: Domid,
    /// The domain's own directory.
    dir: PathBuf,
    control: OwnedFd,
    grants: Arc<Grants>,
    evtchn: Arc<Evtchn>,
}

impl Local {
    /// Attaches to domain `domid`, or to the lowest free one from 1, at the hub of a run directory.
    /// `run` may also be one domain's own `dom<N>` directory, for a process that sees only that.
    ///
    /// # Errors
    /// - `BadRunDir`: not a directory, or one in which another user could have created the sockets.
    /// - `ENOENT`, `ECONNREFUSED`: no hub runs there. You can start one.
    /// - `NotAHub`, `HubVersion`, `HubGone`, `ETIMEDOUT`: the process at the socket is not a
    ///   working hub of our version.
    /// - `DomidTaken`; `EINVAL` for a number above [`DOMID_MAX`](crate::DOMID_MAX).
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
            grants: Arc::new(Grants::new(service("grant", "grants.sock")?)),
            evtchn: Arc::new(Evtchn::new(service("event channel", "evtchn.sock")?)),
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
        // Our own mapping is always writable.
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
        // Closing our descriptor is not enough: others of the same connection would keep the domain
        // alive. An error means that the hub has gone already.
        let _ = shutdown(&self.control, Shutdown::Both);
    }
}
