//! Listening sockets in the run directory.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags};
use tube_platform::Domid;

use crate::owner::Owner;
use crate::rundir::{RunDir, staging_name};
use crate::socket_kind::SocketKind;

/// Creates a listening socket, mode 0600.
///
/// It is created under a staging name and then renamed. So it appears complete, with its owner set
/// and listening; it replaces an older socket; and `chown` never names a file in a directory that
/// somebody else controls.
///
/// # Errors
/// Those of the system calls.
pub fn open(
    run: &RunDir,
    kind: SocketKind,
    domid: Domid,
    owner: Option<Owner>,
) -> Result<OwnedFd, Errno> {
    let path = kind.relative_path(domid);
    let staging = staging_name(&path);
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind.socket_type(), flags, None)?;
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
    rustix::fs::renameat(run, &staging, run, &path)?;
    Ok(socket)
}
