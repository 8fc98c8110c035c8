//! A real domain: grants, event channels and xenstore of the hypervisor below.
//!
//! The Xen Project's own C libraries do the work. They are loaded when a process attaches, so this
//! module builds, and its tests run, on a machine without Xen. Three things differ from the local
//! platform:
//!
//! - A domain cannot be its own peer: mapping one's own grant crashes Linux.
//! - Nothing reports that the other end of an event channel has closed. The byte that unmap-notify
//!   zeroes shows it, and for a destroyed domain xenstore does.
//! - Only a mapping of one page can have a notify byte.

mod evtchn;
mod grants;
mod library;
mod missing;
mod relay;
mod requirements;
mod store;
mod wire;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::platform::check_domid;
use crate::{Access, Domid, Error, EventChannel, Gref, Notify, Pages, Platform};
use evtchn::Evtchn;
use grants::Grants;

pub use missing::Missing;
pub use requirements::missing;
#[cfg(feature = "conformance")]
pub(crate) use store::query;

/// Membership of the Xen domain that this process is in.
pub struct Xen {
    domid: Domid,
    grants: Arc<Grants>,
    evtchn: Evtchn,
    /// The read end reaches its end of file when the write end is closed, with this value. A
    /// hypervisor does not end before its domains, so nothing else ends it.
    life: OwnedFd,
    _alive: OwnedFd,
}

/// The error of [`Xen::attach`]: it lists all that is missing, so that you can fix it in one go.
#[derive(Clone, Debug)]
pub enum AttachError {
    /// At least one of the requirements is missing.
    Missing(Vec<Missing>),
    /// Nothing is missing, but a call failed.
    Failed(Error),
}

impl AttachError {
    /// One lower-case word, suitable as an atom.
    pub fn atom(&self) -> &'static str {
        match self {
            Self::Missing(all) => all.first().map_or("enodev", |first| first.word),
            Self::Failed(error) => error.atom(),
        }
    }
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(all) => {
                for (at, one) in all.iter().enumerate() {
                    write!(f, "{}{}", if at > 0 { "; " } else { "" }, one.what)?;
                }
                Ok(())
            }
            Self::Failed(error) => f.write_str(&error.what),
        }
    }
}

impl std::error::Error for AttachError {}

impl From<Missing> for AttachError {
    fn from(missing: Missing) -> Self {
        Self::Missing(vec![missing])
    }
}

impl From<Error> for AttachError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Xen {
    /// Attaches this process to the domain that it runs in.
    ///
    /// # Errors
    /// All that is missing; otherwise the error of the operating system.
    pub fn attach() -> Result<Self, AttachError> {
        let missing = missing();
        if !missing.is_empty() {
            return Err(AttachError::Missing(missing));
        }
        let (life, alive) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(|errno| Error::posix(errno, "making a pipe"))?;
        Ok(Self {
            domid: store::domid()?,
            grants: Arc::new(Grants::open(Grants::load()?)?),
            evtchn: Evtchn::load()?,
            life,
            _alive: alive,
        })
    }

    fn check_peer(&self, peer: Domid) -> Result<(), Error> {
        check_domid(peer)?;
        if peer == self.domid {
            return Err(Error::invalid(format!(
                "domain {peer} is this domain: on Xen a tube needs two \
                 (the local platform connects VMs of one)"
            )));
        }
        Ok(())
    }
}

impl Platform for Xen {
    fn name(&self) -> &'static str {
        "xen"
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
        self.check_peer(peer)?;
        self.grants.share(peer, pages, access, notify)
    }

    fn map(
        &self,
        peer: Domid,
        refs: &[Gref],
        access: Access,
        notify: Option<Notify>,
    ) -> Result<Pages, Error> {
        self.check_peer(peer)?;
        self.grants.map(peer, refs, access, notify)
    }

    fn evtchn_unbound(&self, peer: Domid) -> Result<Box<dyn EventChannel>, Error> {
        self.check_peer(peer)?;
        Ok(Box::new(self.evtchn.alloc(peer)?))
    }

    fn evtchn_bind(&self, peer: Domid, port: u32) -> Result<Box<dyn EventChannel>, Error> {
        self.check_peer(peer)?;
        Ok(Box::new(self.evtchn.bind(peer, port)?))
    }

    fn xenbus(&self) -> Result<OwnedFd, Error> {
        store::connection()
    }

    fn life(&self) -> Result<OwnedFd, Error> {
        fcntl_dupfd_cloexec(&self.life, 0)
            .map_err(|errno| Error::posix(errno, "duplicating the life pipe"))
    }
}

/// The error of the C function that has just failed.
fn errno() -> Errno {
    let error = std::io::Error::last_os_error();
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
