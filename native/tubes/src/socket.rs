//! Which store: where it listens.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::error::CommandError;

/// What libxenstore and xenstore-rs read.
pub const VARIABLE: &str = "XENSTORED_PATH";

const XEN: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];
const DEVICE: &str = "/dev/xen/xenbus";

/// Where the store was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The socket; `None` is the kernel's device, which a guest of Xen has.
    pub socket: Option<PathBuf>,
    /// Who said so, for people.
    pub because: String,
}

impl Found {
    /// What XENSTORED_PATH has to be. xenstore-rs falls back to the device when it cannot connect,
    /// and to nothing at all nobody can.
    pub fn variable(&self) -> OsString {
        self.socket.clone().unwrap_or_default().into()
    }
}

/// Whether a connection has gone to the device although a socket was meant: xenstore-rs takes the
/// device whenever the socket will not have it, and on a Xen host that is another store.
pub fn strayed() -> bool {
    let meant = std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty());
    let device = || {
        std::fs::read_dir("/proc/self/fd")
            .into_iter()
            .flatten()
            .flatten()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == Path::new(DEVICE)))
    };
    meant && device()
}

/// The run directory of the local platform, and which setting names it.
pub fn run_dir(env: &impl Fn(&str) -> Option<OsString>) -> (PathBuf, String) {
    let named = |name: &str| env(name).filter(|value| !value.is_empty());
    if let Some(dir) = named("TUBE_RUN_DIR") {
        return (dir.into(), "TUBE_RUN_DIR".into());
    }
    match named("XDG_RUNTIME_DIR") {
        Some(dir) => (Path::new(&dir).join("tube"), "XDG_RUNTIME_DIR".into()),
        None => ("/run/tube".into(), "the default".into()),
    }
}

/// Finds the store: `--socket`, XENSTORED_PATH, Xen's, the local platform's, the kernel's.
///
/// # Errors
/// None answers; names all that were tried.
pub fn find(option: Option<&Path>, env: impl Fn(&str) -> Option<OsString>) -> Result<Found, CommandError> {
    let told = option
        .map(|path| (path.to_owned(), "--socket"))
        .or_else(|| {
            let value = env(VARIABLE).filter(|value| !value.is_empty())?;
            Some((value.into(), VARIABLE))
        });
    if let Some((socket, who)) = told {
        // Told is told: never another one, and never the device, in its place.
        return match UnixStream::connect(&socket) {
            Ok(_) => Ok(found(socket, who)),
            Err(error) => Err(CommandError::failed(format_args!(
                "no store answers at {} ({who}): {error}",
                socket.display()
            ))),
        };
    }
    let (run, who) = run_dir(&env);
    let mut tried: Vec<(PathBuf, String)> = XEN.map(|xen| (xen.into(), "Xen's".into())).into();
    tried.extend(ours(&run).map(|socket| (socket, format!("the hub's, by {who}"))));
    for (socket, who) in &tried {
        if UnixStream::connect(socket).is_ok() {
            return Ok(found(socket.clone(), who));
        }
    }
    if rustix::fs::access(
        DEVICE,
        rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK,
    )
    .is_ok()
    {
        return Ok(Found {
            socket: None,
            because: format!("the kernel's, {DEVICE}"),
        });
    }
    let places: Vec<String> = tried
        .iter()
        .map(|(at, _)| at.display().to_string())
        .collect();
    Err(CommandError::failed(format_args!(
        "no store answers: tried {} and {DEVICE}; see `tubes doctor`, or say which: --socket",
        places.join(", ")
    )))
}

fn found(socket: PathBuf, because: &str) -> Found {
    Found {
        socket: Some(socket),
        because: because.to_owned(),
    }
}

/// The hub's socket for domain 0; in a container, which sees only its own domain's, that one.
fn ours(run: &Path) -> impl Iterator<Item = PathBuf> {
    const NAME: &str = "xenstored.sock";
    let mut domains: Vec<PathBuf> = std::fs::read_dir(run)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("dom"));
            number.and_then(crate::path::domid).is_some_and(|n| n != 0)
        })
        .map(|entry| entry.path().join(NAME))
        .collect();
    // Of several we cannot know which one is meant.
    if domains.len() != 1 {
        domains.clear();
    }
    [run.join("dom0").join(NAME), run.join(NAME)]
        .into_iter()
        .chain(domains)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn told_is_told() {
        let fault = find(Some(Path::new("/nonexistent/s")), |_| None).unwrap_err();
        assert!(
            fault.text.contains("/nonexistent/s (--socket)"),
            "{fault:?}"
        );
        let fault = find(None, |name| {
            (name == VARIABLE).then(|| "/nonexistent/v".into())
        });
        assert!(
            fault
                .unwrap_err()
                .text
                .contains("/nonexistent/v (XENSTORED_PATH)")
        );
    }

    #[test]
    fn a_run_directory_or_what_a_container_sees_of_one() {
        for place in [
            "dom0/xenstored.sock",
            "xenstored.sock",
            "dom5/xenstored.sock",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join(place);
            std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
            let _listener = UnixListener::bind(&socket).unwrap();
            let run: OsString = dir.path().into();
            let found = find(None, |name| (name == "TUBE_RUN_DIR").then(|| run.clone())).unwrap();
            // Unless this machine is a Xen host, which goes first.
            if !Path::new(XEN[0]).exists() {
                assert_eq!(found.socket.as_deref(), Some(socket.as_path()));
            }
        }
    }

    #[test]
    fn the_run_directory() {
        let env = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| OsString::from("/run/user/1"));
        assert_eq!(run_dir(&env).0, Path::new("/run/user/1/tube"));
        assert_eq!(run_dir(&|_| None).0, Path::new("/run/tube"));
    }
}
