//! A real domain: grants, event channels and xenstore of the hypervisor below.
//!
//! The Xen Project's own C libraries do the work, loaded when somebody attaches,
//! so this builds and its tests run where there is no Xen. Three things differ
//! from the local platform by nature:
//!
//! - A domain is not its own peer: mapping one's own grant crashes Linux.
//! - Nothing tells that the other end of an event channel has closed; the byte
//!   that unmap-notify zeroes does, and for a destroyed domain xenstore.
//! - A notify byte goes with a mapping of one page.

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
    /// The read end comes to its end of file when the write end goes, with us.
    /// A hypervisor does not go before its domains, so nothing else ends it.
    life: OwnedFd,
    _alive: OwnedFd,
}

/// Why this process cannot be a Xen domain's.
#[derive(Clone, Debug)]
pub enum AttachError {
    /// These things are missing, at least one.
    Missing(Vec<Missing>),
    /// All is there, and something failed all the same.
    Failed(Error),
}

impl AttachError {
    /// One lower-case word, fit to become an atom.
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
    /// Takes this process for one of the domain that it runs in.
    ///
    /// # Errors
    /// What is missing, all of it at once, so that one need not find out piece
    /// by piece; else what the system said.
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
                "domain {peer} is this domain: on Xen a tube needs two (the local platform connects VMs of one)"
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
            .map_err(|errno| Error::posix(errno, "duplicating the pipe of our life"))
    }
}

/// The error of the C function that has just failed.
fn errno() -> Errno {
    let error = std::io::Error::last_os_error();
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
