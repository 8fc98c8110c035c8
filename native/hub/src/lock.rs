//! Which of several processes is the hub of a run directory.

use std::os::fd::OwnedFd;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::fault::Fault;
use crate::rundir::RunDir;

/// The lock file's name. It is never unlinked: a second process could lock a new file of that
/// name while the first still holds the old one.
pub const LOCK: &str = "hub.lock";

/// The lock that makes its holder the hub. It ends with the process, however that ends, so
/// there is nothing stale about a lock file.
#[derive(Debug)]
pub struct Lock {
    file: OwnedFd,
}

impl Lock {
    /// Opens the lock file without taking the lock.
    ///
    /// # Errors
    /// A fault if it cannot be opened.
    pub fn open(run: &RunDir) -> Result<Lock, Fault> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(run, LOCK, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| Fault::new(format!("{}: {errno}", run.path(LOCK).display())))?;
        Ok(Lock { file })
    }

    /// Takes the lock; false if another process has it.
    ///
    /// # Errors
    /// A fault if the file system knows no locks.
    pub fn take(&self) -> Result<bool, Fault> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(Fault::new(format!("cannot lock {LOCK}: {errno}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_until_it_lets_go() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let run = RunDir::open(&temp.path().join("run"), false).expect("made");
        let first = Lock::open(&run).expect("opened");
        let second = Lock::open(&run).expect("opened");
        assert_eq!(first.take(), Ok(true));
        assert_eq!(second.take(), Ok(false));
        drop(first);
        assert_eq!(second.take(), Ok(true));
        assert!(run.path(LOCK).exists());
    }
}
