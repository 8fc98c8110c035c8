//! Is there a hub? Asked from outside, and waiting until there is.

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

use crate::fault::Fault;
use crate::rundir::RunDir;
use crate::socket_kind::SocketKind;

/// Xen's `DOMID_SELF`. Nobody can be that domain, so a HELLO for it claims nothing, and a hub
/// of our version answers EINVAL: that is how to ask for a sign of life.
const NOBODY: u16 = DOMID_MAX + 1;

/// What answers at `hub.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A hub of our version.
    Ours,
    /// Something else; what it said.
    Other(String),
    /// Nothing, within the time given.
    Nothing,
}

/// Asks whoever listens at a run directory's `hub.sock`.
pub fn ask(run: &Path, limit: Duration) -> Answer {
    exchange(
        &run.join(SocketKind::Hub.file_name()),
        Instant::now() + limit,
    )
    .unwrap_or(Answer::Nothing)
}

fn exchange(socket: &Path, deadline: Instant) -> Result<Answer, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let hub = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&hub, &SocketAddrUnix::new(socket)?)?;
    fdpass::send(
        &hub,
        &Request::Hello {
            version: VERSION,
            domid: Some(NOBODY),
        }
        .encode(0),
        &[],
    )?;
    if !wait_readable(&hub, deadline)? {
        return Ok(Answer::Nothing);
    }
    let mut buffer = [0; MESSAGE_MAX];
    let Some((length, _)) = fdpass::receive(&hub, &mut buffer, 0)? else {
        return Ok(Answer::Nothing);
    };
    Ok(match Reply::decode(&buffer[..length]) {
        Ok((_, Reply::Error(error))) if error.kind == ErrorKind::Posix(Errno::INVAL) => {
            Answer::Ours
        }
        Ok((_, Reply::Error(error))) => Answer::Other(error.what),
        Ok(_) | Err(_) => Answer::Other("it is not a hub".to_owned()),
    })
}

/// Tells when something may have changed about who is the hub.
#[derive(Debug)]
pub struct Changes {
    inotify: OwnedFd,
}

impl Changes {
    /// Longest time between two looks: the kernel tells of the closing of a lock file just
    /// before the lock goes, so a look that follows may come too early.
    const LOOK: Duration = Duration::from_millis(100);

    /// Starts watching. Look only after that.
    ///
    /// # Errors
    /// A fault if the host gives us no inotify instance.
    pub fn watch(run: &RunDir) -> Result<Changes, Fault> {
        let bad = |errno: Errno| Fault::new(format!("cannot watch the run directory: {errno}"));
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(bad)?;
        // A socket put in its place, or the end of a process that held the lock.
        let events = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&inotify, run.path(""), events).map_err(bad)?;
        Ok(Changes { inotify })
    }

    /// Waits for a change, or for a while.
    ///
    /// # Errors
    /// A fault if that fails.
    pub fn wait(&self, deadline: Instant) -> Result<(), Fault> {
        let bad = |errno: Errno| Fault::new(format!("cannot wait for a change: {errno}"));
        wait_readable(&self.inotify, deadline.min(Instant::now() + Changes::LOOK)).map_err(bad)?;
        let mut buffer = [0; 4096];
        while rustix::io::read(&self.inotify, &mut buffer).is_ok_and(|length| length > 0) {}
        Ok(())
    }
}

/// Waits until there is something to read, or end of file; false when the time is over.
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
