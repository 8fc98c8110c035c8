//! The lock that decides which process is the hub of a run directory.

use std::os::fd::OwnedFd;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::FatalError;
use crate::rundir::RunDir;

/// The lock file's name. The file is never unlinked: a second process could then lock a new file of
/// that name while the first still holds the old one.
pub const LOCK_FILE: &str = "hub.lock";

/// The lock that makes its holder the hub. The kernel releases it with the process, so a lock file
/// is never stale.
#[derive(Debug)]
pub struct Lock {
    file: OwnedFd,
}

impl Lock {
    /// Opens the lock file without taking the lock.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(run: &RunDir) -> Result<Lock, FatalError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(run, LOCK_FILE, flags, Mode::RUSR | Mode::WUSR).map_err(
            |errno| FatalError::new(format!("{}: {errno}", run.path(LOCK_FILE).display())),
        )?;
        Ok(Lock { file })
    }

    /// Acquires the lock; false if another process holds it.
    ///
    /// # Errors
    /// The file system does not support locks.
    pub fn try_acquire(&self) -> Result<bool, FatalError> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(FatalError::new(format!("cannot lock {LOCK_FILE}: {errno}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_the_lock_until_it_closes_the_file() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let run = RunDir::open(&temp.path().join("run"), false).expect("made");
        let first = Lock::open(&run).expect("opened");
        let second = Lock::open(&run).expect("opened");
        assert_eq!(first.try_acquire(), Ok(true));
        assert_eq!(second.try_acquire(), Ok(false));
        drop(first);
        assert_eq!(second.try_acquire(), Ok(true));
        assert!(run.path(LOCK_FILE).exists());
    }
}
