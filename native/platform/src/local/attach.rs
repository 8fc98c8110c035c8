//! Attaching to a domain: the run directory, its sockets and HELLO.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::geteuid;

use super::proto::{Reply, Request, VERSION};
use super::service::{REPLY_TIMEOUT, Service};
use crate::{Domid, Error, ErrorKind};

/// The result of attaching.
pub(super) struct Attached {
    pub(super) domid: Domid,
    /// The domain's own directory, absolute.
    pub(super) dir: PathBuf,
    /// The control connection. The domain lives as long as it is open.
    pub(super) control: OwnedFd,
}

/// Sends HELLO to `<run>/hub.sock` or, if only one domain's directory is visible, to its
/// `control.sock`.
pub(super) fn attach(run: &Path, domid: Option<Domid>) -> Result<Attached, Error> {
    let run = check_run_dir(run)?;
    let (control, own) = if socket_exists(&run, "hub.sock")? {
        ("hub.sock", false)
    } else if socket_exists(&run, "control.sock")? {
        ("control.sock", true)
    } else {
        let nothing = format_args!("no hub in {}", run.display());
        return Err(Error::posix(Errno::NOENT, nothing));
    };
    let service = Service::new("control", dial(&run, control, SocketType::SEQPACKET)?);
    let hello = Request::Hello {
        version: VERSION,
        domid,
    };
    let given = match service.call(&hello, &[])? {
        (Reply::Welcome { version, .. }, _) if version != VERSION => {
            let what = format!("the hub speaks version {version}, we speak {VERSION}");
            return Err(Error::new(ErrorKind::HubVersion, what));
        }
        (Reply::Welcome { domid: given, .. }, _) if domid.is_none_or(|d| d == given) => given,
        _ => return Err(service.unexpected_reply()),
    };
    let dir = if own {
        run
    } else {
        run.join(format!("dom{given}"))
    };
    Ok(Attached {
        domid: given,
        dir,
        control: service.into_socket(),
    })
}

/// Connects to a socket in the domain's directory. The result is non-blocking.
pub(super) fn dial(dir: &Path, name: &str, kind: SocketType) -> Result<OwnedFd, Error> {
    let path = dir.join(name);
    let failed = |errno| match errno {
        // The socket there is of another type.
        Errno::PROTOTYPE => Error::new(
            ErrorKind::NotAHub,
            format!("{} is not the socket of a hub", path.display()),
        ),
        // The backlog stayed full until the time limit.
        Errno::AGAIN => Error::posix(
            Errno::TIMEDOUT,
            format_args!("connecting to {}", path.display()),
        ),
        errno => Error::posix(errno, format_args!("connecting to {}", path.display())),
    };
    let socket =
        socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).map_err(failed)?;
    // For Unix sockets this also limits connect.
    set_socket_timeout(&socket, Timeout::Send, Some(REPLY_TIMEOUT)).map_err(failed)?;
    match SocketAddrUnix::new(&path) {
        Ok(address) => connect(&socket, &address).map_err(failed)?,
        Err(Errno::NAMETOOLONG) => {
            // A socket address holds 107 bytes. Reach a longer path through a descriptor of the
            // directory.
            let dir = open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
            let short = format!("/proc/self/fd/{}/{name}", dir.as_fd().as_raw_fd());
            let address = SocketAddrUnix::new(short).map_err(failed)?;
            connect(&socket, &address).map_err(failed)?;
        }
        Err(errno) => return Err(failed(errno)),
    }
    fcntl_setfl(&socket, OFlags::NONBLOCK).map_err(failed)?;
    Ok(socket)
}

/// Resolves the directory, and checks that its owner is this user or root and that nobody else can
/// create sockets in it.
fn check_run_dir(run: &Path) -> Result<PathBuf, Error> {
    let refuse = |why: &str| {
        let what = format!("run directory {}: {why}", run.display());
        Err(Error::new(ErrorKind::BadRunDir, what))
    };
    let (absolute, meta) = match fs::canonicalize(run).and_then(|p| Ok((fs::metadata(&p)?, p))) {
        Ok((meta, absolute)) => (absolute, meta),
        // ENOENT included: the hub may not have created it yet.
        Err(error) => {
            return Err(io_error(
                &error,
                format_args!("run directory {}", run.display()),
            ));
        }
    };
    let us = geteuid().as_raw();
    if !meta.is_dir() {
        refuse("not a directory")
    } else if meta.uid() != us && meta.uid() != 0 {
        refuse("belongs to another user")
    } else if meta.mode() & 0o022 != 0 {
        refuse("other users can write to it")
    } else {
        Ok(absolute)
    }
}

fn socket_exists(dir: &Path, name: &str) -> Result<bool, Error> {
    let path = dir.join(name);
    match fs::metadata(&path) {
        Ok(meta) if meta.file_type().is_socket() => Ok(true),
        Ok(_) => Err(Error::new(
            ErrorKind::NotAHub,
            format!("{} is not a socket", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error(&error, path.display())),
    }
}

fn io_error(error: &io::Error, doing: impl std::fmt::Display) -> Error {
    Error::posix(Errno::from_io_error(error).unwrap_or(Errno::IO), doing)
}
