//! Xen's own xenstored as a child process, without a hypervisor.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tempfile::TempDir;

use crate::ring::Ring;
use crate::system::{Client, System};
use crate::wire::Message;

/// Where the tests may keep files from one run to the next.
const CACHE: &str = env!("CARGO_TARGET_TMPDIR");

/// How long an answer may take before the test fails.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is needed to run the reference, made once per test run.
struct Kit {
    root: PathBuf,
    shim: PathBuf,
}

fn kit() -> &'static Kit {
    static KIT: OnceLock<Kit> = OnceLock::new();
    KIT.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim");
        let root = Path::new(CACHE).join("xen-4.17");
        let fetched = Command::new("sh").arg(sources.join("fetch.sh")).arg(&root).status();
        assert!(
            fetched.is_ok_and(|status| status.success()),
            "the reference xenstored cannot be had, so nothing can be compared with it (tests/shim/fetch.sh says why)"
        );
        let shim = Path::new(CACHE).join("no_hypervisor.so");
        let fresh = shim.with_extension(format!("so.{}", std::process::id()));
        let built = Command::new(std::env::var_os("CC").unwrap_or("cc".into()))
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .args([&fresh, &sources.join("no_hypervisor.c")])
            .arg("-ldl")
            .status();
        assert!(
            built.is_ok_and(|status| status.success()),
            "no_hypervisor.c does not build: is there a C compiler?"
        );
        // In one step, should another test run be using it.
        fs::rename(&fresh, &shim).unwrap();
        Kit { root, shim }
    })
}

/// One client of the reference.
enum Line {
    Socket(UnixStream),
    Ring(Ring),
}

/// A running xenstored. It ends when this is dropped.
pub struct Reference {
    daemon: Child,
    dir: TempDir,
    kick: File,
    bell: File,
    lines: HashMap<Client, (Line, Vec<u8>)>,
}

impl Reference {
    /// Starts one with an empty store; returns when it listens.
    pub fn start() -> Reference {
        let kit = kit();
        let dir = TempDir::new().unwrap();
        for name in ["kick", "bell"] {
            let made = Command::new("mkfifo").arg(dir.path().join(name)).status();
            assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        }
        let fifo = |name: &str| {
            let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(flags)
                .open(dir.path().join(name))
                .unwrap()
        };
        let (kick, bell) = (fifo("kick"), fifo("bell"));
        let mut daemon = Command::new(kit.root.join("usr/lib/xen-4.17/bin/xenstored"))
            .args(["--no-fork", "--output-pid", "--timeout", "watch-event=0"])
            .env("LD_PRELOAD", &kit.shim)
            .env("LD_LIBRARY_PATH", kit.root.join("usr/lib/x86_64-linux-gnu"))
            .env("NO_HYPERVISOR", dir.path())
            .env("XENSTORED_RUNDIR", dir.path())
            .env("XENSTORED_ROOTDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.path().join("log")).unwrap())
            .spawn()
            .expect("xenstored starts");
        // It prints its pid when it is ready for clients.
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let reference = Reference {
            daemon,
            dir,
            kick,
            bell,
            lines: HashMap::new(),
        };
        assert!(
            !line.is_empty(),
            "xenstored does not start: {}",
            reference.log()
        );
        reference
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn ring_file(&self, domid: u32) -> PathBuf {
        self.dir.path().join(format!("ring-{domid}"))
    }

    fn ring_bell(&mut self) {
        // A full FIFO wakes xenstored as well.
        let _ = self.kick.write(&[0]);
    }

    fn wait_for_bell(&mut self) {
        let mut fds = [PollFd::new(&self.bell, PollFlags::IN)];
        let timeout = rustix::event::Timespec {
            tv_sec: TIMEOUT.as_secs() as i64,
            tv_nsec: 0,
        };
        assert_ne!(
            poll(&mut fds, Some(&timeout)).unwrap(),
            0,
            "no sign of life from xenstored"
        );
        let _ = self.bell.read(&mut [0; 4096]);
    }

    fn send_all(&mut self, client: Client, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match &mut self.lines.get_mut(&client).unwrap().0 {
                Line::Socket(socket) => return socket.write_all(rest).unwrap(),
                Line::Ring(ring) => rest = &rest[ring.put(rest)..],
            }
            self.ring_bell();
            if !rest.is_empty() {
                self.wait_for_bell();
            }
        }
    }

    fn receive_some(&mut self, client: Client) {
        let (line, buffer) = self.lines.get_mut(&client).unwrap();
        match line {
            Line::Socket(socket) => {
                let mut bytes = [0; 4096];
                let count = match socket.read(&mut bytes) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => return,
                    result => result.expect("an answer in time"),
                };
                buffer.extend_from_slice(&bytes[..count]);
                assert_ne!(
                    count,
                    0,
                    "xenstored has closed the connection, or died: {}",
                    self.log()
                );
            }
            Line::Ring(ring) => {
                let count = ring.take(buffer);
                // It may wait for room in the ring.
                self.ring_bell();
                if count == 0 {
                    self.wait_for_bell();
                }
            }
        }
    }
}

impl System for Reference {
    fn connect(&mut self, client: Client) {
        let line = match client {
            Client::Tool(_) => {
                let socket = UnixStream::connect(self.dir.path().join("socket")).unwrap();
                socket.set_read_timeout(Some(TIMEOUT)).unwrap();
                Line::Socket(socket)
            }
            // Its ring was there before it was introduced.
            Client::Guest(_) => return,
        };
        self.lines.insert(client, (line, Vec::new()));
    }

    fn disconnect(&mut self, client: Client) {
        self.lines.remove(&client);
    }

    fn create_domain(&mut self, domid: u32) {
        let line = Line::Ring(Ring::create(&self.ring_file(domid)));
        self.lines.insert(Client::Guest(domid), (line, Vec::new()));
    }

    fn end_domain(&mut self, domid: u32) {
        fs::remove_file(self.ring_file(domid)).unwrap();
        self.lines.remove(&Client::Guest(domid));
    }

    fn send(&mut self, client: Client, request: &Message) {
        self.send_all(client, &request.encode());
    }

    fn receive(&mut self, client: Client) -> Message {
        loop {
            if let Some(message) = Message::take(&mut self.lines.get_mut(&client).unwrap().1) {
                return message;
            }
            self.receive_some(client);
        }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
