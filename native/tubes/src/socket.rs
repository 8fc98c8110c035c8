//! Finds the socket of the store.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::error::CommandError;

/// The variable from which libxenstore and xenstore-rs take the path of the socket.
pub const VARIABLE: &str = "XENSTORED_PATH";

const XEN: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];
const DEVICE: &str = "/dev/xen/xenbus";

/// A store that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its socket, or `None` for the kernel's device in a Xen guest.
    pub socket: Option<PathBuf>,
    /// What determined it, for people.
    pub source: String,
}

impl Found {
    /// The value for XENSTORED_PATH. xenstore-rs uses the device if it cannot connect to the
    /// socket, and it can never connect to an empty path.
    pub fn variable(&self) -> OsString {
        self.socket.clone().unwrap_or_default().into()
    }
}

/// Whether this process has opened the device although XENSTORED_PATH names a socket: xenstore-rs
/// falls back to the device whenever the socket refuses, and on a Xen host that is another store.
pub fn fell_back_to_device() -> bool {
    let wanted = std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty());
    let device = || {
        std::fs::read_dir("/proc/self/fd")
            .into_iter()
            .flatten()
            .flatten()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == Path::new(DEVICE)))
    };
    wanted && device()
}

/// The run directory of the local platform, and the name of the setting that determines it.
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

/// Finds the store: `--socket`, XENSTORED_PATH, Xen's socket, the local platform's, the device.
///
/// # Errors
/// None accepts a connection. The text lists all that were tried.
pub fn find(
    option: Option<&Path>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Found, CommandError> {
    let given = option
        .map(|path| (path.to_owned(), "--socket"))
        .or_else(|| {
            let value = env(VARIABLE).filter(|value| !value.is_empty())?;
            Some((value.into(), VARIABLE))
        });
    if let Some((socket, source)) = given {
        // Never use another store than the one that the user named.
        return match UnixStream::connect(&socket) {
            Ok(_) => Ok(found(socket, source)),
            Err(error) => Err(CommandError::failed(format_args!(
                "no store answers at {} ({source}): {error}",
                socket.display()
            ))),
        };
    }
    let (run, setting) = run_dir(&env);
    let mut tried: Vec<(PathBuf, String)> = XEN.map(|xen| (xen.into(), "Xen's".into())).into();
    tried.extend(hub_sockets(&run).map(|socket| (socket, format!("the hub's, by {setting}"))));
    for (socket, source) in &tried {
        if UnixStream::connect(socket).is_ok() {
            return Ok(found(socket.clone(), source));
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
            source: format!("the kernel's, {DEVICE}"),
        });
    }
    let places: Vec<String> = tried
        .iter()
        .map(|(at, _)| at.display().to_string())
        .collect();
    Err(CommandError::failed(format_args!(
        "no store answers: tried {} and {DEVICE}; see `tubes doctor`, or name one with --socket",
        places.join(", ")
    )))
}

fn found(socket: PathBuf, source: &str) -> Found {
    Found {
        socket: Some(socket),
        source: source.to_owned(),
    }
}

/// The hub's sockets to try: that of domain 0, or in a container that of its only domain.
fn hub_sockets(run: &Path) -> impl Iterator<Item = PathBuf> {
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
    // With several domains, none of them is the obvious choice.
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
    fn a_store_that_the_user_named_is_the_only_one_tried() {
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
    fn the_socket_in_a_run_directory_on_the_host_and_in_a_container() {
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
            // On a Xen host, the socket of Xen comes first.
            if !Path::new(XEN[0]).exists() {
                assert_eq!(found.socket.as_deref(), Some(socket.as_path()));
            }
        }
    }

    #[test]
    fn the_run_directory_follows_the_environment() {
        let env = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| OsString::from("/run/user/1"));
        assert_eq!(run_dir(&env).0, Path::new("/run/user/1/tube"));
        assert_eq!(run_dir(&|_| None).0, Path::new("/run/tube"));
    }
}
