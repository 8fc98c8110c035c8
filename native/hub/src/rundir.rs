//! The run directory: checks it, creates directories of domains, removes what earlier hubs left.

use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use tube_platform::{DOMID_MAX, Domid};

use crate::error::FatalError;
use crate::owner::Owner;

/// Longest path in a unix socket address (`sun_path` without its NUL).
const SOCKET_PATH_MAX: usize = 107;

/// Longest name of a socket below the run directory (see [`staging_name`]).
const LONGEST_NAME: &str = ".dom32751.xenstored.sock";

/// An open run directory that has passed the checks.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    dir: OwnedFd,
}

impl RunDir {
    /// Opens the directory, and creates it if it is missing (its parent must exist).
    ///
    /// With `passable`, other users may pass through it (0711) to the directories of their domains;
    /// otherwise a new directory is private (0700).
    ///
    /// # Errors
    /// What is wrong with the directory. It must belong to the hub's user and be writable by nobody
    /// else: anybody who can write there can replace the hub's sockets.
    pub fn open(path: &Path, passable: bool) -> Result<RunDir, FatalError> {
        let bad = |why: &dyn std::fmt::Display| {
            FatalError::new(format!("run directory {}: {why}", path.display()))
        };
        if path.as_os_str().len() + 1 + LONGEST_NAME.len() > SOCKET_PATH_MAX {
            return Err(bad(&format_args!(
                "the path is too long for sockets in it (at most {} bytes)",
                SOCKET_PATH_MAX - 1 - LONGEST_NAME.len()
            )));
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(bad(&format_args!("cannot be created: {error}")));
            }
            _ => {}
        }
        let dir = rustix::fs::open(path, OPEN_DIR, Mode::empty()).map_err(|errno| match errno {
            Errno::NOTDIR | Errno::LOOP => bad(&"is not a directory"),
            _ => bad(&errno),
        })?;
        let stat = rustix::fs::fstat(&dir).map_err(|errno| bad(&errno))?;
        let me = rustix::process::geteuid().as_raw();
        if stat.st_uid != me {
            return Err(bad(&format_args!(
                "belongs to user {}, but the hub runs as user {me}",
                stat.st_uid
            )));
        }
        let mode = stat.st_mode & 0o7777;
        if mode & 0o022 != 0 {
            return Err(bad(&format_args!(
                "is writable by its group or by others (mode {mode:04o})"
            )));
        }
        if passable && mode & 0o011 != 0o011 {
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode | 0o011))
                .map_err(|errno| bad(&errno))?;
        }
        Ok(RunDir {
            path: path.to_owned(),
            dir,
        })
    }

    /// The path of a file below it.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.path.join(below)
    }

    /// Creates the directory of a domain, without sockets, mode 0700.
    ///
    /// Keeps an existing directory, since a container may have it mounted.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn make_domain(&self, domid: Domid, owner: Option<Owner>) -> Result<(), Errno> {
        let name = domain_name(domid);
        match rustix::fs::mkdirat(&self.dir, &name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let dir = rustix::fs::openat(&self.dir, &name, OPEN_DIR, Mode::empty())?;
        clear(&dir, |name| !name.ends_with(b".sock"))?;
        if let Some(owner) = owner {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            rustix::fs::fchown(&dir, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(&dir, Mode::RWXU)
    }

    /// Removes the directory of a domain with its sockets, unless it contains other files.
    ///
    /// # Errors
    /// Those of the system calls; `NOTEMPTY` if it contains other files.
    pub fn remove_domain(&self, domid: Domid) -> Result<(), Errno> {
        let name = domain_name(domid);
        let dir = rustix::fs::openat(&self.dir, &name, OPEN_DIR, Mode::empty())?;
        clear(&dir, |name| !name.ends_with(b".sock"))?;
        rustix::fs::unlinkat(&self.dir, &name, AtFlags::REMOVEDIR)
    }

    /// Removes a socket if it exists.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn remove_socket(&self, below: &str) -> Result<(), Errno> {
        match rustix::fs::unlinkat(&self.dir, below, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// Removes what a killed hub left: sockets, and the directories of domains except those to
    /// `keep`. Call it only while holding the lock.
    ///
    /// # Errors
    /// Those of the system calls. A directory that cannot be removed is no error: it is passed to
    /// `stuck`.
    pub fn sweep(
        &self,
        keep: impl Fn(Domid) -> bool,
        mut stuck: impl FnMut(Domid),
    ) -> Result<(), Errno> {
        // Remove only files with the hub's names: the directory may serve other purposes too.
        let ours = |name: &[u8]| {
            name == b"hub.sock"
                || (name.starts_with(b".dom") || name == b".hub.sock") && name.ends_with(b".sock")
        };
        clear(&self.dir, |name| !ours(name))?;
        let mut domains = Vec::new();
        for entry in Dir::read_from(&self.dir)? {
            if let Some(domid) = domid_of(entry?.file_name().to_bytes()) {
                domains.push(domid);
            }
        }
        for domid in domains {
            match rustix::fs::unlinkat(&self.dir, domain_name(domid), AtFlags::empty()) {
                // A file or a link with the name of a domain's directory.
                Ok(()) => continue,
                Err(Errno::ISDIR) => {}
                Err(errno) => return Err(errno),
            }
            if !keep(domid) && self.remove_domain(domid).is_err() {
                stuck(domid);
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for RunDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.display().fmt(f)
    }
}

impl AsFd for RunDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

// Never through a link: owners control the directories of their domains.
const OPEN_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The name of a domain's directory.
pub fn domain_name(domid: Domid) -> String {
    format!("dom{domid}")
}

/// The name under which the socket `below` is created before it is renamed: directly in the run
/// directory, where nobody else can write.
pub fn staging_name(below: &str) -> String {
    format!(".{}", below.replace('/', "."))
}

fn domid_of(name: &[u8]) -> Option<Domid> {
    let digits = name.strip_prefix(b"dom")?;
    let domid: Domid = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (domid <= DOMID_MAX && domain_name(domid).as_bytes() == name).then_some(domid)
}

/// Unlinks the files in a directory, except subdirectories and those to `keep`.
fn clear(dir: &OwnedFd, keep: impl Fn(&[u8]) -> bool) -> Result<(), Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if entry.file_type() != FileType::Directory && !keep(entry.file_name().to_bytes()) {
            names.push(entry.file_name().to_owned());
        }
    }
    for name in names {
        match rustix::fs::unlinkat(dir, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").mode() & 0o7777
    }

    #[test]
    fn a_missing_directory_is_created_private() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let path = temp.path().join("run");
        RunDir::open(&path, false).expect("made");
        assert_eq!(mode(&path), 0o700);
        RunDir::open(&path, true).expect("opened again");
        assert_eq!(mode(&path), 0o711);
    }

    #[test]
    fn unfit_directories_are_refused_in_one_line() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let loose = temp.path().join("loose");
        fs::create_dir(&loose).expect("a directory");
        fs::set_permissions(&loose, fs::Permissions::from_mode(0o770)).expect("chmod");
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(temp.path(), &link).expect("a link");
        let file = temp.path().join("file");
        fs::write(&file, "").expect("a file");
        let long = temp.path().join("x".repeat(100));
        for (path, why) in [
            (loose, "writable by its group or by others (mode 0770)"),
            (link, "not a directory"),
            (file, "not a directory"),
            (long, "too long"),
            (temp.path().join("no/parent"), "cannot be created"),
        ] {
            let error = RunDir::open(&path, false).expect_err(why).to_string();
            assert!(
                error.contains(why) && error.contains(&path.display().to_string()),
                "{error}"
            );
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn sweep_removes_only_files_of_the_hub() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let run = RunDir::open(&temp.path().join("run"), false).expect("made");
        for domid in [1, 2, 3, 4] {
            run.make_domain(domid, None).expect("a directory");
        }
        for name in [
            "hub.sock",
            ".dom1.grants.sock",
            "dom1/grants.sock",
            "dom2/control.sock",
            "dom3/mine",
            "hub.lock",
            "dom07",
            "dom6",
            "other.sock",
        ] {
            fs::write(run.path(name), "").expect("a file");
        }
        let mut stuck = Vec::new();
        run.sweep(|domid| domid == 2, |domid| stuck.push(domid))
            .expect("swept");
        assert_eq!(stuck, [3]);
        let mut left: Vec<_> = fs::read_dir(run.path(""))
            .expect("the directory")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .collect();
        left.sort();
        assert_eq!(left, ["dom07", "dom2", "dom3", "hub.lock", "other.sock"]);
        // The directory was kept; creating the domain again removes its sockets.
        run.make_domain(2, None).expect("set up again");
        assert!(!run.path("dom2/control.sock").exists());
    }

    #[test]
    fn a_link_instead_of_a_directory_is_not_followed() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let run = RunDir::open(&temp.path().join("run"), false).expect("made");
        fs::write(temp.path().join("precious.sock"), "").expect("a file");
        std::os::unix::fs::symlink(temp.path(), run.path("dom9")).expect("a link");
        assert!(run.make_domain(9, None).is_err());
        run.sweep(|_| true, |_| {}).expect("swept");
        assert!(!run.path("dom9").exists());
        assert!(temp.path().join("precious.sock").exists());
    }
}
