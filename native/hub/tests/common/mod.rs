//! Test support: a hub in a temporary run directory, and clients for it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;
use tube_hub::log::Log;
use tube_hub::probe::wait_readable;
use tube_hub::rundir::RunDir;
use tube_hub::server::{Hub, Setup, Timeouts};
use tube_platform::Domid;
use tube_platform::conformance::Traits;
use tube_platform::local::fdpass;
use tube_platform::local::proto::{MESSAGE_MAX, Reply, Request, VERSION};

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
    tells_peer_gone: true,
    keeps_early_bells: true,
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

/// A connection for the hub's own protocol, or for malformed packets.
#[derive(Debug)]
pub struct Client {
    pub socket: OwnedFd,
    seq: u32,
}

impl Client {
    pub fn connect(path: &Path) -> rustix::io::Result<Client> {
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Client { socket, seq: 0 })
    }

    pub fn send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        fdpass::send(&self.socket, bytes, fds).expect("sent");
    }

    pub fn ask(&mut self, request: Request) -> Reply {
        self.ask_with(request, &[]).0
    }

    pub fn ask_with(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> (Reply, Vec<OwnedFd>) {
        self.seq += 1;
        self.send(&request.encode(self.seq), fds);
        let (seq, reply, fds) = self.receive().expect("a reply");
        assert_eq!(seq, self.seq);
        (reply, fds)
    }

    /// The next reply; None at end of file.
    pub fn receive(&mut self) -> Option<(u32, Reply, Vec<OwnedFd>)> {
        assert!(
            wait_readable(&self.socket, deadline()).expect("poll"),
            "no reply"
        );
        let mut buffer = [0; MESSAGE_MAX];
        match fdpass::receive(&self.socket, &mut buffer, 253) {
            Ok(None) | Err(rustix::io::Errno::CONNRESET) => None,
            Ok(Some((length, fds))) => {
                let (seq, reply) = Reply::decode(&buffer[..length]).expect("a reply");
                Some((seq, reply, fds))
            }
            Err(errno) => panic!("{errno}"),
        }
    }

    /// Waits until the hub closes the connection. Ignores replies before that.
    pub fn expect_end(mut self) {
        while self.receive().is_some() {}
    }
}

/// The atom of an error reply.
pub fn error_atom(reply: &Reply) -> &'static str {
    match reply {
        Reply::Error(error) => error.atom(),
        other => panic!("not an error: {other:?}"),
    }
}

/// A claimed domain. Dropping it ends it.
pub struct Domain {
    run: PathBuf,
    pub domid: Domid,
    pub control: Client,
}

impl Domain {
    pub fn client(&self, name: &str) -> Client {
        Client::connect(&self.run.join(format!("dom{}", self.domid)).join(name)).expect("connected")
    }

    pub fn store(&self) -> Store {
        Store::connect(&self.run.join(format!("dom{}/xenstored.sock", self.domid)))
    }
}

/// A sealed memfd.
pub fn memory(pages: u64) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("test", flags).expect("a memfd");
    rustix::fs::ftruncate(&fd, pages * 4096).expect("sized");
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .expect("sealed");
    fd
}

/// The readiness of a descriptor now.
pub fn ready(fd: impl AsFd) -> PollFlags {
    let mut fds = [PollFd::new(&fd, PollFlags::IN | PollFlags::OUT)];
    poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .expect("poll");
    fds[0].revents()
}

/// Message types of the xenstore protocol that tests use.
pub mod op {
    pub const DIRECTORY: u32 = 1;
    pub const READ: u32 = 2;
    pub const WATCH: u32 = 4;
    pub const WRITE: u32 = 11;
    pub const RM: u32 = 13;
    pub const SET_PERMS: u32 = 14;
    pub const WATCH_EVENT: u32 = 15;
    pub const ERROR: u32 = 16;
}

/// A connection to the store.
pub struct Store(pub UnixStream);

impl Store {
    pub fn connect(path: &Path) -> Store {
        let stream = UnixStream::connect(path).expect("connected");
        stream.set_read_timeout(Some(TIMEOUT)).expect("set");
        stream.set_write_timeout(Some(TIMEOUT)).expect("set");
        Store(stream)
    }

    pub fn message(op: u32, payload: &[u8]) -> Vec<u8> {
        let header: Vec<u8> = [op, 1, 0, payload.len() as u32]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect();
        [&header, payload].concat()
    }

    pub fn send(&mut self, op: u32, payload: &[u8]) {
        use std::io::Write;
        self.0
            .write_all(&Store::message(op, payload))
            .expect("sent");
    }

    /// The next message: type and payload.
    pub fn receive(&mut self) -> std::io::Result<(u32, Vec<u8>)> {
        use std::io::Read;
        let mut header = [0; 16];
        self.0.read_exact(&mut header)?;
        let field =
            |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let mut payload = vec![0; field(12) as usize];
        self.0.read_exact(&mut payload)?;
        Ok((field(0), payload))
    }

    /// Sends a request and returns its reply. Skips events.
    pub fn ask(&mut self, op: u32, payload: &[u8]) -> (u32, Vec<u8>) {
        self.send(op, payload);
        loop {
            let (got, payload) = self.receive().expect("a reply");
            if got != op::WATCH_EVENT {
                return (got, payload);
            }
        }
    }

    /// The payload of a reply that must not be an error.
    pub fn must(&mut self, op: u32, payload: &[u8]) -> Vec<u8> {
        let (got, reply) = self.ask(op, payload);
        assert_eq!(got, op, "{}", String::from_utf8_lossy(&reply));
        reply
    }

    /// Waits for an event about exactly this path.
    pub fn await_event(&mut self, path: &str) {
        let wanted = format!("{path}\0");
        loop {
            let (op, payload) = self.receive().expect("an event");
            if op == op::WATCH_EVENT && payload.starts_with(wanted.as_bytes()) {
                return;
            }
        }
    }
}
