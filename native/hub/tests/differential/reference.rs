//! The reference: Xen's own xenstored as a child process, without a hypervisor.

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

/// A directory for files that later runs reuse.
const CACHE: &str = env!("CARGO_TARGET_TMPDIR");

/// How long a reply may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The files needed to run the reference, prepared once per test run.
struct Installation {
    root: PathBuf,
    shim: PathBuf,
}

fn installation() -> &'static Installation {
    static INSTALLATION: OnceLock<Installation> = OnceLock::new();
    INSTALLATION.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim");
        let root = Path::new(CACHE).join("xen-4.17");
        let fetched = Command::new("sh")
            .arg(sources.join("fetch.sh"))
            .arg(&root)
            .status();
        assert!(
            fetched.is_ok_and(|status| status.success()),
            "cannot download the reference xenstored: see the output of tests/shim/fetch.sh"
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
            "cannot build no_hypervisor.c: is there a C compiler?"
        );
        // Atomically, since another test run may be using it.
        fs::rename(&fresh, &shim).unwrap();
        Installation { root, shim }
    })
}

/// How a client connects to the reference.
enum Transport {
    Socket(UnixStream),
    Ring(Ring),
}

/// A running xenstored. Dropping it ends the process.
pub struct Reference {
    daemon: Child,
    dir: TempDir,
    events_in: File,
    events_out: File,
    clients: HashMap<Client, (Transport, Vec<u8>)>,
}

impl Reference {
    /// Starts one with an empty store, and waits until it listens.
    pub fn start() -> Reference {
        let installation = installation();
        let dir = TempDir::new().unwrap();
        for name in ["events-in", "events-out"] {
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
        let (events_in, events_out) = (fifo("events-in"), fifo("events-out"));
        let mut daemon = Command::new(installation.root.join("usr/lib/xen-4.17/bin/xenstored"))
            .args(["--no-fork", "--output-pid", "--timeout", "watch-event=0"])
            .env("LD_PRELOAD", &installation.shim)
            .env(
                "LD_LIBRARY_PATH",
                installation.root.join("usr/lib/x86_64-linux-gnu"),
            )
            .env("NO_HYPERVISOR", dir.path())
            .env("XENSTORED_RUNDIR", dir.path())
            .env("XENSTORED_ROOTDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.path().join("log")).unwrap())
            .spawn()
            .expect("xenstored starts");
        // It prints its pid once it listens.
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let reference = Reference {
            daemon,
            dir,
            events_in,
            events_out,
            clients: HashMap::new(),
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

    fn notify(&mut self) {
        // A full FIFO wakes xenstored too.
        let _ = self.events_in.write(&[0]);
    }

    fn wait_for_notification(&mut self) {
        let mut fds = [PollFd::new(&self.events_out, PollFlags::IN)];
        let timeout = rustix::event::Timespec {
            tv_sec: TIMEOUT.as_secs() as i64,
            tv_nsec: 0,
        };
        assert_ne!(
            poll(&mut fds, Some(&timeout)).unwrap(),
            0,
            "no event from xenstored"
        );
        let _ = self.events_out.read(&mut [0; 4096]);
    }

    fn send_all(&mut self, client: Client, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match &mut self.clients.get_mut(&client).unwrap().0 {
                Transport::Socket(socket) => return socket.write_all(rest).unwrap(),
                Transport::Ring(ring) => rest = &rest[ring.put(rest)..],
            }
            self.notify();
            if !rest.is_empty() {
                self.wait_for_notification();
            }
        }
    }

    fn receive_some(&mut self, client: Client) {
        let (transport, buffer) = self.clients.get_mut(&client).unwrap();
        match transport {
            Transport::Socket(socket) => {
                let mut bytes = [0; 4096];
                let count = match socket.read(&mut bytes) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => return,
                    result => result.expect("a reply in time"),
                };
                buffer.extend_from_slice(&bytes[..count]);
                assert_ne!(
                    count,
                    0,
                    "xenstored has closed the connection or ended: {}",
                    self.log()
                );
            }
            Transport::Ring(ring) => {
                let count = ring.take(buffer);
                // xenstored may be waiting for room in the ring.
                self.notify();
                if count == 0 {
                    self.wait_for_notification();
                }
            }
        }
    }
}

impl System for Reference {
    fn connect(&mut self, client: Client) {
        let transport = match client {
            Client::Tool(_) => {
                let socket = UnixStream::connect(self.dir.path().join("socket")).unwrap();
                socket.set_read_timeout(Some(TIMEOUT)).unwrap();
                Transport::Socket(socket)
            }
            // Its ring was created before it was introduced.
            Client::Guest(_) => return,
        };
        self.clients.insert(client, (transport, Vec::new()));
    }

    fn disconnect(&mut self, client: Client) {
        self.clients.remove(&client);
    }

    fn create_domain(&mut self, domid: u32) {
        let transport = Transport::Ring(Ring::create(&self.ring_file(domid)));
        self.clients
            .insert(Client::Guest(domid), (transport, Vec::new()));
    }

    fn end_domain(&mut self, domid: u32) {
        fs::remove_file(self.ring_file(domid)).unwrap();
        self.clients.remove(&Client::Guest(domid));
    }

    fn send(&mut self, client: Client, request: &Message) {
        self.send_all(client, &request.encode());
    }

    fn receive(&mut self, client: Client) -> Message {
        loop {
            if let Some(message) = Message::take(&mut self.clients.get_mut(&client).unwrap().1) {
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
