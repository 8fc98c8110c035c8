//! The trait, and the words it is written in.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::{Error, Gref, PAGE, Pages};

/// Number of a domain, real or virtual.
pub type Domid = u16;

/// The highest number that a domain can have. Xen keeps 0x7FF0 and above for
/// itself (`DOMID_FIRST_RESERVED` in xen/include/public/xen.h).
pub const DOMID_MAX: Domid = 0x7FEF;

/// Refuses a number that no domain can have.
pub(crate) fn check_domid(domid: Domid) -> Result<(), Error> {
    if domid <= DOMID_MAX {
        Ok(())
    } else {
        Err(Error::invalid(format!(
            "{domid} is not a domain: 0 to {DOMID_MAX}"
        )))
    }
}

/// What the peer may do with shared pages, and what a mapper asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// The mapper only reads. The sharer always writes its own pages.
    ReadOnly,
    /// Both sides read and write.
    ReadWrite,
}

/// Unmap-notify: what happens when the pages go, also by a crash where a kernel
/// can see to it (Xen). The byte is zeroed first, then the event is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify {
    /// Offset of the byte. It must lie in page 0, and on Xen there must be no
    /// other page: its interface has such a byte for a mapping of one page only.
    pub offset: usize,
    /// Local port of the event channel to ring. It must be one of this
    /// platform's, and open.
    pub port: u32,
}

impl Notify {
    /// Checks what every platform demands: the byte lies in the first page, and the mapping is
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

/// What [`EventChannel::acknowledge`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// The channel is as it was; what was pending is consumed.
    Open,
    /// The other end is closed, by will or by death. Nothing more will come.
    PeerGone,
}

/// One end of an event channel: a bell that a peer rings, and ours for it.
///
/// Events carry no data and merge: any number of notifications before an
/// acknowledgement may arrive as one. An event may also be early (rung before
/// the other end was bound) or, on Xen, lost when rung before the bind: look at
/// the rings once after binding.
///
/// Dropping it closes this end.
pub trait EventChannel: Send + Sync {
    /// The local port, to be published to the peer or named in a [`Notify`].
    fn port(&self) -> u32;

    /// Readable while an event is pending and once the peer has gone. To be
    /// polled, never read: [`acknowledge`](Self::acknowledge) does that.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Rings the peer. Never blocks. Success if an event is pending already.
    ///
    /// # Errors
    /// [`ErrorKind::PeerGone`](crate::ErrorKind::PeerGone) where the platform
    /// can tell (Xen cannot).
    fn notify(&self) -> Result<(), Error>;

    /// Consumes what is pending and unmasks, so that the next event makes
    /// [`fd`](Self::fd) readable again. Never blocks. Look at the rings *after*
    /// it. What it leaves behind, by its own bound on work, keeps the
    /// descriptor readable.
    ///
    /// # Errors
    /// Only those of a broken descriptor.
    fn acknowledge(&self) -> Result<Ack, Error>;
}

/// Membership of one domain: what the machine below gives to a tube.
///
/// Calls may block for a bounded time (a request to a hub or a hypervisor), so
/// they belong on a thread that may wait. Dropping pages and channels does not
/// block.
pub trait Platform: Send + Sync {
    /// `"local"` or `"xen"`.
    fn name(&self) -> &'static str;

    /// The domain that this process is in.
    fn domid(&self) -> Domid;

    /// Makes `pages` zeroed, contiguous pages and grants each to `peer`.
    /// `access` is the peer's; ours is always writable.
    ///
    /// # Errors
    /// `EINVAL` for no pages, too many, or a notify byte outside page 0 or with
    /// a port that is not ours; `ENOSPC` when the domain's grants are used up.
    fn share(
        &self,
        peer: Domid,
        pages: usize,
        access: Access,
        notify: Option<Notify>,
    ) -> Result<Pages, Error>;

    /// Maps pages that `peer` has granted to us, contiguously and in the order
    /// of `refs`, which need not be neighbours nor of one grant.
    ///
    /// # Errors
    /// `ENOENT` for a reference that does not exist (any more), `EACCES` for
    /// one that is not for us or not with that access, `EINVAL` as for
    /// [`share`](Self::share), or memory that the sharer could take away while
    /// we use it.
    fn map(
        &self,
        peer: Domid,
        refs: &[Gref],
        access: Access,
        notify: Option<Notify>,
    ) -> Result<Pages, Error>;

    /// Makes an end that only `peer` can bind to.
    ///
    /// # Errors
    /// `ENOSPC` when no port is left.
    fn evtchn_unbound(&self, peer: Domid) -> Result<Box<dyn EventChannel>, Error>;

    /// Binds to the port that `peer` made for us.
    ///
    /// # Errors
    /// `ENOENT` for a port that does not exist or is bound already, `EACCES`
    /// for one that is not for us.
    fn evtchn_bind(&self, peer: Domid, port: u32) -> Result<Box<dyn EventChannel>, Error>;

    /// A new connection to the store as this domain, non-blocking.
    ///
    /// # Errors
    /// As the operating system says.
    fn xenbus(&self) -> Result<OwnedFd, Error>;

    /// A descriptor that comes to its end of file when whatever gives us our
    /// domain is gone. To be polled and read, never written.
    ///
    /// # Errors
    /// As the operating system says.
    fn life(&self) -> Result<OwnedFd, Error>;
}
