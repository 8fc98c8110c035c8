//! Sockets that clients connect to.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tube_platform::Domid;

use crate::owner::Owner;
use crate::rundir::{RunDir, domain_name, staging_name};

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Door {
    /// `hub.sock`: control for whoever sees the whole run directory, any domain.
    Hub,
    /// `control.sock`: control of one domain.
    Control,
    /// `xenstored.sock`: the store's wire protocol, seen as one domain.
    Store,
    /// `grants.sock`.
    Grants,
    /// `evtchn.sock`.
    Evtchn,
}

impl Door {
    /// The doors that a domain has while it lives.
    pub const LIVING: [Door; 4] = [Door::Control, Door::Store, Door::Grants, Door::Evtchn];

    /// The file's name.
    pub fn name(self) -> &'static str {
        match self {
            Door::Hub => "hub.sock",
            Door::Control => "control.sock",
            Door::Store => "xenstored.sock",
            Door::Grants => "grants.sock",
            Door::Evtchn => "evtchn.sock",
        }
    }

    /// How many connections it serves at a time, each way in. Enough for what a library
    /// does and a few admins, and little enough that nobody runs us out of anything.
    pub fn connections(self) -> usize {
        match self {
            // Those who have not said who they are; a domain is limited otherwise.
            Door::Hub => 128,
            Door::Control => 16,
            Door::Store => 64,
            Door::Grants | Door::Evtchn => 4,
        }
    }

    /// Where it is below the run directory.
    pub fn below(self, domid: Domid) -> String {
        match self {
            Door::Hub => self.name().to_owned(),
            _ => format!("{}/{}", domain_name(domid), self.name()),
        }
    }

    fn kind(self) -> SocketType {
        match self {
            Door::Store => SocketType::STREAM,
            _ => SocketType::SEQPACKET,
        }
    }
}

/// Makes a listening socket, mode 0600.
///
/// It is made under another name and then renamed: it appears with its owner set and
/// listening, replaces what was there, and nothing in a directory that somebody else controls
/// is ever named to chown.
///
/// # Errors
/// Those of the system calls.
pub fn open(
    run: &RunDir,
    door: Door,
    domid: Domid,
    owner: Option<Owner>,
) -> Result<OwnedFd, Errno> {
    let place = door.below(domid);
    let staging = staging_name(&place);
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, door.kind(), flags, None)?;
    run.remove_socket(&staging)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(run.path(&staging))?)?;
    rustix::fs::chmodat(run, &staging, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
    if let Some(owner) = owner {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::chownat(
            run,
            &staging,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    rustix::net::listen(&socket, 1024)?;
    rustix::fs::renameat(run, &staging, run, &place)?;
    Ok(socket)
}
