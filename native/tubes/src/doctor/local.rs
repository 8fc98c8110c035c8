//! Checks of the local platform: kernel, run directory, hub, limits.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Resource, getrlimit};

use super::check::{Check, Grade};
use super::machine::Machine;

/// Maximum length of a run directory, so that the paths of its sockets fit into `sun_path`.
const RUN_DIR_MAX: usize = 82;

/// Below this limit on descriptors, a VM may run out of them: each tube takes several.
const DESCRIPTORS_MIN: u64 = 1024;

/// The version of the hub's protocol in this release of the library.
const HUB_VERSION: u32 = 1;

pub fn checks(machine: &Machine) -> Vec<Check> {
    let mut checks = vec![kernel()];
    let (run, setting) = crate::socket::run_dir(&machine.env);
    let directory = run_dir(&run, &setting);
    let usable = run.exists() && directory.grade == Grade::Fine;
    checks.push(directory);
    if usable {
        checks.push(hub(&run));
    }
    checks.push(descriptors());
    checks.extend(pipes(machine));
    checks
}

/// The pages that VMs share are sealed memory files.
fn kernel() -> Check {
    let sealed = || -> rustix::io::Result<()> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("doctor", flags)?;
        rustix::fs::ftruncate(&fd, 4096)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals)
    };
    match sealed() {
        Ok(()) => Check::fine("kernel", "memory files can be sealed"),
        Err(errno) => Check::bad(
            "kernel",
            Grade::Wrong,
            format!("memory files cannot be sealed against writing: {errno}"),
            "use Linux 5.1 or newer; in a container, allow memfd_create in the seccomp profile",
        ),
    }
}

/// Applies the same rules as the library and the hub.
fn run_dir(run: &Path, setting: &str) -> Check {
    let shown = format!("{} ({setting})", run.display());
    let wrong = |found: String, cure: &str| Check::bad("run dir", Grade::Wrong, found, cure);
    if !run.is_absolute() {
        return wrong(
            format!("{shown} is not an absolute path"),
            "set TUBE_RUN_DIR to an absolute path",
        );
    }
    if run.as_os_str().len() > RUN_DIR_MAX {
        return wrong(
            format!("{shown} is longer than {RUN_DIR_MAX} bytes, too long for the sockets in it"),
            "set TUBE_RUN_DIR to a shorter path",
        );
    }
    let Ok(stat) = std::fs::metadata(run) else {
        let parent = run.parent().unwrap_or(run);
        return if rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_ok() {
            Check::fine(
                "run dir",
                format!("{shown} does not exist yet; the first VM creates it"),
            )
        } else {
            wrong(
                format!("{shown} does not exist, and this user cannot create it"),
                "set TUBE_RUN_DIR or XDG_RUNTIME_DIR, or create it: install -d -m 0700 -o USER DIR",
            )
        };
    };
    let (mode, me) = (stat.mode() & 0o7777, rustix::process::geteuid().as_raw());
    if !stat.is_dir() {
        wrong(
            format!("{shown} is not a directory"),
            "remove it, or set TUBE_RUN_DIR",
        )
    } else if ![0, me].contains(&stat.uid()) {
        wrong(
            format!(
                "{shown} belongs to user {}, but this is user {me}",
                stat.uid()
            ),
            "set TUBE_RUN_DIR to a directory of this user",
        )
    } else if mode & 0o022 != 0 {
        wrong(
            format!("the group of {shown} or others may write to it (mode {mode:04o})"),
            "chmod 0700, or chmod 0711 if domains belong to different users",
        )
    } else {
        Check::fine("run dir", format!("{shown}, mode {mode:04o}"))
    }
}

fn hub(run: &Path) -> Check {
    let socket = run.join("hub.sock");
    let version = match hub_version(&socket) {
        Ok(version) => version,
        Err(errno) => {
            let note = format!("no hub runs in {} ({errno})", run.display());
            let cure = "wait for the first VM, which starts a hub, or run tube-hub --daemon";
            return Check::bad("hub", Grade::Warning, note, cure);
        }
    };
    if version == Some(HUB_VERSION) {
        Check::fine("hub", format!("runs with protocol version {HUB_VERSION}"))
    } else {
        Check::bad(
            "hub",
            Grade::Wrong,
            format!(
                "the program at {} does not speak protocol version {HUB_VERSION}",
                socket.display()
            ),
            "stop all VMs and that hub; the next VM starts a hub of its own version",
        )
    }
}

/// Sends HELLO for Xen's DOMID_SELF, which no VM can be, so that this claims no domain. A hub of
/// our version replies with EINVAL, another one with an error about the version.
fn hub_version(socket: &Path) -> rustix::io::Result<Option<u32>> {
    let flags = SocketFlags::CLOEXEC;
    let hub = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::connect(&hub, &SocketAddrUnix::new(socket)?)?;
    let words = [1, 0, HUB_VERSION, 0x7FF0_u32];
    let hello: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    rustix::net::send(&hub, &hello, SendFlags::NOSIGNAL)?;
    let limit = Timespec::try_from(Duration::from_secs(2)).expect("small");
    if poll(&mut [PollFd::new(&hub, PollFlags::IN)], Some(&limit))? == 0 {
        return Err(rustix::io::Errno::TIMEDOUT);
    }
    let mut reply = [0; 1024];
    let (length, _) = rustix::net::recv(&hub, &mut reply, RecvFlags::empty())?;
    let field = |at: usize| {
        let bytes = reply[..length].get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    };
    let einval = rustix::io::Errno::INVAL.raw_os_error().cast_unsigned();
    let ours = field(0) == Some(0x8000_0000) && field(8) == Some(einval);
    Ok(ours.then_some(HUB_VERSION))
}

fn descriptors() -> Check {
    let limit = getrlimit(Resource::Nofile);
    let shown = limit.current.map_or("no limit".into(), |n| n.to_string());
    let found = format!("descriptors per process: {shown}");
    match limit.current {
        Some(n) if n < DESCRIPTORS_MIN => Check::bad(
            "limits",
            Grade::Warning,
            found,
            "run ulimit -n 4096, or set LimitNOFILE=4096 in the unit: each tube takes several",
        ),
        _ => Check::fine("limits", found),
    }
}

/// Above the soft limit, new pipes of a user are tiny; above the hard limit, creating one fails.
fn pipes(machine: &Machine) -> Option<Check> {
    let hard = machine.number("/proc/sys/fs/pipe-user-pages-hard")?;
    let soft = machine.number("/proc/sys/fs/pipe-user-pages-soft")?;
    // A tube has two pipes of 16 pages each.
    let found = format!("pipe pages per user: soft limit {soft}, hard limit {hard} (0 means none)");
    Some(if hard != 0 && hard < 1024 {
        Check::bad(
            "limits",
            Grade::Warning,
            format!("{found}: enough for {} tubes", hard / 32),
            "run sysctl fs.pipe-user-pages-hard=0, or run the hub as root",
        )
    } else {
        Check::fine("limits", found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn unusable_run_directories_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let grade = |path: &Path| run_dir(path, "test").grade;
        assert_eq!(grade(dir.path()), Grade::Fine);
        assert_eq!(grade(&dir.path().join("new")), Grade::Fine);
        assert_eq!(grade(Path::new("/nonexistent/deep/run")), Grade::Wrong);
        assert_eq!(grade(Path::new("relative")), Grade::Wrong);
        assert_eq!(grade(&dir.path().join("x".repeat(90))), Grade::Wrong);
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let check = run_dir(dir.path(), "test");
        assert!(
            check.grade == Grade::Wrong && check.cure.starts_with("chmod"),
            "{check:?}"
        );
        assert_eq!(hub(dir.path()).grade, Grade::Warning);
    }
}
