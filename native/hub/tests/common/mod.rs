//! Test support: a hub in a temporary run directory, and clients for it.
#![allow(dead_code, reason = "each test file uses a part of it")]

mod client;
mod store;

use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;
use tube_hub::log::Log;
use tube_hub::probe::wait_readable;
use tube_hub::rundir::RunDir;
use tube_hub::server::{Hub, Setup, Timeouts};
use tube_platform::Domid;
use tube_platform::conformance::Traits;
use tube_platform::local::proto::{Reply, Request, VERSION};

#[allow(unused_imports, reason = "each test file uses a part of it")]
pub use client::{Client, Domain, error_atom, memory, ready};
#[allow(unused_imports, reason = "each test file uses a part of it")]
pub use store::{Store, op};

/// Limit of every wait, far above what a passing test needs.
pub const TIMEOUT: Duration = Duration::from_secs(20);

pub fn deadline() -> Instant {
    Instant::now() + TIMEOUT
}

/// The program under test.
pub fn hub_command(run: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tube-hub"));
    command.arg("--run").arg(run).stdin(Stdio::null());
    command
}

/// The traits of the local platform.
pub const LOCAL: Traits = Traits {
    reports_peer_gone: true,
    keeps_early_notifications: true,
    says_why: true,
    peer_may_be_self: true,
};

/// The path of a program in examples/, which `cargo test` builds too.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let target = test.ancestors().nth(2).expect("target/debug");
    let path = target.join("examples").join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build -p tube-hub --example {name}",
        path.display()
    );
    path
}

/// The command that runs examples/domain.rs in a guest of the Xen lab.
pub fn in_guest(domid: u32) -> Command {
    let env = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let mut command = Command::new(env("TUBE_TEST_ENTER"));
    command.env("TUBE_DOMID", domid.to_string());
    command.arg(env("TUBE_TEST_DOMAIN"));
    command
}

/// The option that keeps a domain for the user who runs the tests.
pub fn kept(domid: Domid) -> String {
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    format!("--domain={domid}:{}:{}", uid.as_raw(), gid.as_raw())
}

/// Whether the test runs as root, which `chown` and other users need.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// A temporary run directory with hubs. Dropping it ends them.
pub struct Rig {
    temp: TempDir,
    children: Vec<Child>,
}

impl Rig {
    /// Without a hub.
    pub fn new() -> Rig {
        let temp = tempfile::Builder::new()
            .prefix("hub")
            .tempdir()
            .expect("a temporary directory");
        Rig {
            temp,
            children: Vec::new(),
        }
    }

    /// With a running hub.
    pub fn with_hub(args: &[&str]) -> Rig {
        let mut rig = Rig::new();
        rig.start(args);
        rig
    }

    /// With a running hub that has this limit of open descriptors.
    pub fn with_descriptor_limit(descriptors: u32) -> Rig {
        let mut rig = Rig::new();
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nofile={descriptors}"))
            .arg(env!("CARGO_BIN_EXE_tube-hub"))
            .arg("--run")
            .arg(rig.run());
        rig.launch(command);
        rig
    }

    pub fn run(&self) -> PathBuf {
        self.temp.path().join("run")
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.run().join(below)
    }

    /// The hub's stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.temp.path().join("stderr")).unwrap_or_default()
    }

    /// Starts a hub in the foreground and waits until it reports that it is ready, as to systemd.
    pub fn start(&mut self, args: &[&str]) -> &mut Child {
        let mut command = hub_command(&self.run());
        command.args(args);
        self.launch(command)
    }

    fn launch(&mut self, mut command: Command) -> &mut Child {
        let path = self.temp.path().join("notify");
        let _ = std::fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path).expect("a socket");
        let log = self.temp.path().join("stderr");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log");
        let child = command
            .env("NOTIFY_SOCKET", &path)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a hub");
        assert!(
            wait_readable(&notify, deadline()).expect("poll"),
            "no hub: {}",
            self.log()
        );
        let mut message = [0; 16];
        let length = notify.recv(&mut message).expect("a message");
        assert_eq!(&message[..length], b"READY=1");
        self.children.push(child);
        self.children.last_mut().expect("just pushed")
    }

    /// The last hub started.
    pub fn hub(&mut self) -> &mut Child {
        self.children.last_mut().expect("a hub was started")
    }

    pub fn client(&self, below: &str) -> Client {
        Client::connect(&self.path(below)).expect("connected")
    }

    /// Claims a domain.
    pub fn domain(&self, domid: Option<Domid>) -> Domain {
        let mut control = self.client("hub.sock");
        match control.ask(Request::Hello {
            version: VERSION,
            domid,
        }) {
            Reply::Welcome {
                version: VERSION,
                domid,
            } => Domain {
                run: self.run(),
                domid,
                control,
            },
            other => panic!("{other:?}"),
        }
    }

    /// Runs one of Debian's xenstore tools and returns its output.
    pub fn tool(&self, socket: &str, program: &str, args: &[&str]) -> Result<String, String> {
        let output = Command::new(program)
            .args(args)
            .env("XENSTORED_PATH", self.path(socket))
            .stdin(Stdio::null())
            .output()
            .expect("xenstore-utils is installed");
        let out = String::from_utf8(output.stdout).expect("text");
        if output.status.success() {
            Ok(out)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// The file names in a directory below the run directory.
    pub fn names(&self, below: &str) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.path(below))
            .expect("a directory")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .collect();
        names.sort();
        names
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        // A detached hub, if the test failed before it ended it.
        if let Ok(client) = Client::connect(&self.path("hub.sock"))
            && let Ok(hub) = rustix::net::sockopt::socket_peercred(&client.socket)
            && hub.pid != rustix::process::getpid()
        {
            let _ = kill_process(hub.pid, Signal::KILL);
        }
        if std::thread::panicking() {
            eprintln!("log of the hub:\n{}", self.log());
        }
    }
}

/// A hub in a thread of this process, with short timeouts.
pub struct InProcessHub {
    pub rig: Rig,
    _stop: UnixStream,
}

impl InProcessHub {
    /// A hub with the same limit for all its timeouts.
    pub fn with_timeouts(limit: Duration) -> InProcessHub {
        let rig = Rig::new();
        let (stop, stopped) = UnixStream::pair().expect("a pair");
        let setup = Setup {
            run: RunDir::open(&rig.run(), false).expect("a directory"),
            idle_timeout: None,
            domains: Vec::new(),
            descriptors: 4096,
            timeouts: Timeouts {
                hello: limit,
                read: limit,
            },
            log: Log::file(&rig.temp.path().join("stderr"), false).expect("a log"),
        };
        let hub = Hub::open(setup, stopped.into()).expect("a hub");
        std::thread::spawn(move || hub.serve().expect("no error"));
        InProcessHub { rig, _stop: stop }
    }
}

/// Waits for a process to end, which need not be a child.
pub fn wait_for_end(pid: Pid) {
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => assert!(
            wait_readable(process, deadline()).expect("poll"),
            "the process does not end"
        ),
        Err(errno) => assert_eq!(errno, rustix::io::Errno::SRCH),
    }
}

/// The process that listens on `hub.sock`.
pub fn hub_pid(run: &Path) -> Pid {
    let client = Client::connect(&run.join("hub.sock")).expect("connected");
    rustix::net::sockopt::socket_peercred(&client.socket)
        .expect("credentials")
        .pid
}

/// Ends a detached hub and waits for it.
pub fn end_hub(run: &Path) {
    let pid = hub_pid(run);
    kill_process(pid, Signal::TERM).expect("signalled");
    wait_for_end(pid);
}
