//! The trait [`Platform`], and the types in its interface.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::{Error, Gref, PAGE, Pages};

/// Number of a domain, real or virtual.
pub type Domid = u16;

/// The highest valid domid. Xen reserves 0x7FF0 and above (`DOMID_FIRST_RESERVED` in
/// xen/include/public/xen.h).
pub const DOMID_MAX: Domid = 0x7FEF;

/// Checks that a domid is at most [`DOMID_MAX`].
pub(crate) fn check_domid(domid: Domid) -> Result<(), Error> {
    if domid <= DOMID_MAX {
        Ok(())
    } else {
        Err(Error::invalid(format!(
            "{domid} is not a domain: 0 to {DOMID_MAX}"
        )))
    }
}

/// What the peer may do with shared pages, and the access that a mapper requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// The mapper only reads. The sharer always writes its own pages.
    ReadOnly,
    /// Both sides read and write.
    ReadWrite,
}

/// Unmap-notify: what happens when a mapping ends. The byte is zeroed first, then the event is
/// sent. On Xen the kernel does it, so it also happens after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify {
    /// Offset of the byte. It must lie in page 0. On Xen the mapping must have only that page.
    pub offset: usize,
    /// Local port of the event channel to notify. It must be an open port of this platform.
    pub port: u32,
}

impl Notify {
    /// Checks what every platform requires: the byte lies in the first page, and the mapping is
    /// writable.
    pub(crate) fn check(self, access: Access) -> Result<(), Error> {
        if self.offset >= PAGE {
            Err(Error::invalid("the notify byte must be in the first page"))
        } else if access == Access::ReadOnly {
            Err(Error::invalid("the notify byte must be writable"))
        } else {
            Ok(())
        }
    }
}

/// The state of a channel after [`EventChannel::acknowledge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// The channel is still open. Pending events are consumed.
    Open,
    /// The other end was closed, or its process died. No more events will come.
    PeerGone,
}

/// One end of an event channel, on which each side notifies the other.
///
/// Events carry no data and merge: any number of notifications before an acknowledgement may arrive
/// as one. An event may be sent before the other end is bound; on Xen such an event can be lost. So
/// check the shared memory once after binding.
///
/// Dropping it closes this end.
pub trait EventChannel: Send + Sync {
    /// The local port, to publish to the peer or to name in a [`Notify`].
    fn port(&self) -> u32;

    /// Readable while an event is pending and once the peer has gone. Poll it, but never read it:
    /// [`acknowledge`](Self::acknowledge) does that.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Notifies the peer. Never blocks. Succeeds if an event is pending already.
    ///
    /// # Errors
    /// [`ErrorKind::PeerGone`](crate::ErrorKind::PeerGone) where the platform can tell (Xen
    /// cannot).
    fn notify(&self) -> Result<(), Error>;

    /// Consumes pending events and unmasks the channel, so that the next event makes
    /// [`fd`](Self::fd) readable again. Never blocks. Check the shared memory *after* this call.
    /// The work per call is bounded; any events left over keep the descriptor readable.
    ///
    /// # Errors
    /// Only if the descriptor is broken.
    fn acknowledge(&self) -> Result<Ack, Error>;
}

/// Membership of one domain: what the machine below provides to a tube.
///
/// Calls may block for a bounded time (a request to a hub or a hypervisor), so make them on a
/// thread that may wait. Dropping pages and channels does not block.
pub trait Platform: Send + Sync {
    /// `"local"` or `"xen"`.
    fn name(&self) -> &'static str;

    /// The domain that this process is in.
    fn domid(&self) -> Domid;

    /// Allocates `pages` zeroed, contiguous pages and grants each to `peer`. `access` is the
    /// peer's; our own mapping is always writable.
    ///
    /// # Errors
    /// `EINVAL` for no pages, too many, or a notify byte outside page 0 or with a port that is not
    /// ours; `ENOSPC` when the domain has no grants left.
    fn share(
        &self,
        peer: Domid,
        pages: usize,
        access: Access,
        notify: Option<Notify>,
    ) -> Result<Pages, Error>;

    /// Maps pages that `peer` has granted to us, contiguously and in the order of `refs`. The
    /// references may come from several grants, in any order.
    ///
    /// # Errors
    /// `ENOENT` for a reference that does not exist or no longer does, `EACCES` for one that was
    /// granted to another domain or with another access, `EINVAL` as for [`share`](Self::share) or
    /// for memory that the sharer could take away while we use it.
    fn map(
        &self,
        peer: Domid,
        refs: &[Gref],
        access: Access,
        notify: Option<Notify>,
    ) -> Result<Pages, Error>;

    /// Allocates a port that only `peer` can bind to.
    ///
    /// # Errors
    /// `ENOSPC` when no port is left.
    fn evtchn_unbound(&self, peer: Domid) -> Result<Box<dyn EventChannel>, Error>;

    /// Binds to the port that `peer` allocated for us.
    ///
    /// # Errors
    /// `ENOENT` for a port that does not exist or is already bound, `EACCES` for one that was
    /// allocated for another domain.
    fn evtchn_bind(&self, peer: Domid, port: u32) -> Result<Box<dyn EventChannel>, Error>;

    /// Opens a new, non-blocking connection to xenstore as this domain.
    ///
    /// # Errors
    /// Those of the operating system.
    fn xenbus(&self) -> Result<OwnedFd, Error>;

    /// A descriptor that reaches its end of file when the provider of the domain ends: the hub, on
    /// the local platform. Poll and read it, but never write it.
    ///
    /// # Errors
    /// Those of the operating system.
    fn life(&self) -> Result<OwnedFd, Error>;
}
