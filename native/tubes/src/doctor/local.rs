//! The local platform: kernel, run directory, hub, limits.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Resource, getrlimit};

use super::{Check, Grade, Machine};

/// Longest path of a run directory whose sockets still have names (`sun_path`).
const RUN_DIR_MAX: usize = 82;

/// Descriptors of one tube in a VM: two ends each of two pipes, less what the peer has.
const DESCRIPTORS: u64 = 1024;

/// Version of the hub's protocol that this release of the library speaks.
const HUB_VERSION: u32 = 1;

pub fn checks(machine: &Machine) -> Vec<Check> {
    let mut checks = vec![kernel()];
    let (run, who) = crate::socket::run_dir(&machine.env);
    let directory = run_dir(&run, &who);
    let there = run.exists() && directory.grade == Grade::Fine;
    checks.push(directory);
    if there {
        checks.push(hub(&run));
    }
    checks.push(descriptors());
    checks.extend(pipes(machine));
    checks
}

/// Shared pages need sealed memory files.
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
            "Linux 5.1 or newer; in a container, a seccomp profile that allows memfd_create",
        ),
    }
}

/// The same rules as the library's and the hub's own.
fn run_dir(run: &Path, who: &str) -> Check {
    let shown = format!("{} ({who})", run.display());
    let wrong = |found: String, cure: &str| Check::bad("run dir", Grade::Wrong, found, cure);
    if !run.is_absolute() {
        return wrong(
            format!("{shown} is not an absolute path"),
            "set TUBE_RUN_DIR to one",
        );
    }
    if run.as_os_str().len() > RUN_DIR_MAX {
        return wrong(
            format!("{shown} is longer than {RUN_DIR_MAX} bytes: no socket below it has a name"),
            "set TUBE_RUN_DIR to a shorter path",
        );
    }
    let Ok(stat) = std::fs::metadata(run) else {
        let parent = run.parent().unwrap_or(run);
        return if rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_ok() {
            Check::fine(
                "run dir",
                format!("{shown} is not there yet; the first VM makes it"),
            )
        } else {
            wrong(
                format!("{shown} is not there, and this user cannot make it"),
                "set TUBE_RUN_DIR or XDG_RUNTIME_DIR, or make it: install -d -m 0700 -o USER DIR",
            )
        };
    };
    let (mode, me) = (stat.mode() & 0o7777, rustix::process::geteuid().as_raw());
    if !stat.is_dir() {
        wrong(
            format!("{shown} is no directory"),
            "remove it, or set TUBE_RUN_DIR",
        )
    } else if ![0, me].contains(&stat.uid()) {
        wrong(
            format!("{shown} belongs to user {}, we are user {me}", stat.uid()),
            "set TUBE_RUN_DIR to a directory of your own",
        )
    } else if mode & 0o022 != 0 {
        wrong(
            format!("{shown}: its group or others may write to it (mode {mode:04o})"),
            "chmod 0700 (0711 if domains have owners of their own)",
        )
    } else {
        Check::fine("run dir", format!("{shown}, mode {mode:04o}"))
    }
}

fn hub(run: &Path) -> Check {
    let socket = run.join("hub.sock");
    let version = match ask(&socket) {
        Ok(version) => version,
        Err(errno) => {
            let note = format!("no hub answers in {} ({errno})", run.display());
            let cure =
                "none is needed before the first VM, which starts one; else: tube-hub --daemon";
            return Check::bad("hub", Grade::Warning, note, cure);
        }
    };
    if version == Some(HUB_VERSION) {
        Check::fine("hub", format!("answers, protocol version {HUB_VERSION}"))
    } else {
        Check::bad(
            "hub",
            Grade::Wrong,
            format!(
                "what answers at {} does not speak version {HUB_VERSION}",
                socket.display()
            ),
            "end all VMs and that hub, and let the new library start its own",
        )
    }
}

/// Says HELLO as a domain that nobody can be (Xen's DOMID_SELF), which claims nothing: a hub of our
/// version answers with an error of code 22, EINVAL; another one says that the version is wrong.
fn ask(socket: &Path) -> rustix::io::Result<Option<u32>> {
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
    let mut answer = [0; 1024];
    let (length, _) = rustix::net::recv(&hub, &mut answer, RecvFlags::empty())?;
    let field = |at: usize| {
        let bytes = answer[..length].get(at..at + 4)?;
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
        Some(n) if n < DESCRIPTORS => Check::bad(
            "limits",
            Grade::Warning,
            found,
            "ulimit -n 4096, or LimitNOFILE=4096 in the unit: a tube takes several in each VM",
        ),
        _ => Check::fine("limits", found),
    }
}

/// Over this many pages, a user's new pipes have room for little; over the hard one, there are none.
fn pipes(machine: &Machine) -> Option<Check> {
    let hard = machine.number("/proc/sys/fs/pipe-user-pages-hard")?;
    let soft = machine.number("/proc/sys/fs/pipe-user-pages-soft")?;
    // A pipe has 16 pages, a tube two pipes.
    let found = format!("pipe pages per user: soft limit {soft}, hard limit {hard} (0: none)");
    Some(if hard != 0 && hard < 1024 {
        Check::bad(
            "limits",
            Grade::Warning,
            format!("{found}: {} tubes", hard / 32),
            "sysctl fs.pipe-user-pages-hard=0, or run the hub as root",
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
    fn run_directories() {
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
