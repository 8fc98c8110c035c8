//! Finds out whether a hub serves a run directory, and waits for changes of that.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tube_platform::local::fdpass;
use tube_platform::local::proto::{MESSAGE_MAX, Reply, Request, VERSION};
use tube_platform::{DOMID_MAX, ErrorKind};

use crate::error::FatalError;
use crate::rundir::RunDir;
use crate::socket_kind::SocketKind;

/// Xen's `DOMID_SELF`, which no domain can have. A HELLO for it claims nothing, and a hub of this
/// version replies EINVAL, which shows that it serves.
const NO_DOMAIN: u16 = DOMID_MAX + 1;

/// What listens on `hub.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A hub of this version.
    Hub,
    /// Something else, and its reply.
    Other(String),
    /// Nothing, or nothing that replied in time.
    Nothing,
}

/// Probes a run directory's `hub.sock`.
pub fn probe(run: &Path, timeout: Duration) -> Found {
    let socket = run.join(SocketKind::Hub.file_name());
    exchange(&socket, Instant::now() + timeout).unwrap_or(Found::Nothing)
}

fn exchange(socket: &Path, deadline: Instant) -> Result<Found, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let hub = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&hub, &SocketAddrUnix::new(socket)?)?;
    fdpass::send(
        &hub,
        &Request::Hello {
            version: VERSION,
            domid: Some(NO_DOMAIN),
        }
        .encode(0),
        &[],
    )?;
    if !wait_readable(&hub, deadline)? {
        return Ok(Found::Nothing);
    }
    let mut buffer = [0; MESSAGE_MAX];
    let Some((length, _)) = fdpass::receive(&hub, &mut buffer, 0)? else {
        return Ok(Found::Nothing);
    };
    Ok(match Reply::decode(&buffer[..length]) {
        Ok((_, Reply::Error(error))) if error.kind == ErrorKind::Posix(Errno::INVAL) => Found::Hub,
        Ok((_, Reply::Error(error))) => Found::Other(error.what),
        Ok(_) | Err(_) => Found::Other("not a hub".to_owned()),
    })
}

/// Reports when another process may have become or ceased to be the hub.
#[derive(Debug)]
pub struct HubChanges {
    inotify: OwnedFd,
}

impl HubChanges {
    /// Longest wait: the kernel reports that a lock file was closed just before it releases the
    /// lock, so a check right after the report may come too early.
    const INTERVAL: Duration = Duration::from_millis(100);

    /// Starts watching. Check for a hub only after that.
    ///
    /// # Errors
    /// The host has no inotify instance left.
    pub fn watch(run: &RunDir) -> Result<HubChanges, FatalError> {
        let bad =
            |errno: Errno| FatalError::new(format!("cannot watch the run directory: {errno}"));
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(bad)?;
        // A socket renamed to its final name, or the lock file closed by its holder.
        let events = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&inotify, run.path(""), events).map_err(bad)?;
        Ok(HubChanges { inotify })
    }

    /// Waits for a change, for at most 100 ms.
    ///
    /// # Errors
    /// Waiting failed.
    pub fn wait(&self, deadline: Instant) -> Result<(), FatalError> {
        let bad = |errno: Errno| FatalError::new(format!("cannot wait for a change: {errno}"));
        wait_readable(
            &self.inotify,
            deadline.min(Instant::now() + HubChanges::INTERVAL),
        )
        .map_err(bad)?;
        let mut buffer = [0; 4096];
        while rustix::io::read(&self.inotify, &mut buffer).is_ok_and(|length| length > 0) {}
        Ok(())
    }
}

/// Waits until there is data or end of file; false if the deadline passes.
///
/// # Errors
/// Those of `poll`.
pub fn wait_readable(fd: impl AsFd, deadline: Instant) -> Result<bool, Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno),
        }
    }
}
