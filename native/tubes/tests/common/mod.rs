//! Runs stores and fills them with nodes: the hub of this project, and xenstored of Xen.
#![allow(dead_code, reason = "each test file uses a part of this module")]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use tempfile::TempDir;

const NATIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A running store. Dropping it ends the store.
pub struct Store {
    child: Child,
    dir: TempDir,
    socket: &'static str,
}

impl Store {
    /// The hub that `mix compile` has built, or $TUBE_HUB.
    pub fn hub() -> Store {
        let program = std::env::var_os("TUBE_HUB").map_or_else(
            || Path::new(NATIVE).join("../priv/native/tube-hub"),
            PathBuf::from,
        );
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("ready");
        let ready = UnixDatagram::bind(&socket).unwrap();
        ready
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let child = Command::new(&program)
            .arg("--run")
            .arg(dir.path().join("run"))
            .env("NOTIFY_SOCKET", &socket)
            .stdin(Stdio::null())
            .stderr(File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{}: {error}; run mix compile to build it",
                    program.display()
                )
            });
        // Dropping it ends the hub, even if the hub does not become ready.
        let store = Store {
            child,
            dir,
            socket: "run/dom0/xenstored.sock",
        };
        let mut word = [0; 16];
        // A receive with a timeout is not restarted after a signal.
        let length = loop {
            match ready.recv(&mut word) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result.expect("the hub becomes ready"),
            }
        };
        assert_eq!(&word[..length], b"READY=1");
        store
    }

    /// Debian's xenstored, without a hypervisor.
    pub fn xen() -> Store {
        let (root, shim) = kit();
        let dir = TempDir::new().unwrap();
        for name in ["events-in", "events-out"] {
            assert!(
                Command::new("mkfifo")
                    .arg(dir.path().join(name))
                    .status()
                    .unwrap()
                    .success()
            );
        }
        let mut child = Command::new(root.join("usr/lib/xen-4.17/bin/xenstored"))
            .args(["--no-fork", "--output-pid"])
            .env("LD_PRELOAD", shim)
            .env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"))
            .env("NO_HYPERVISOR", dir.path())
            .env("XENSTORED_RUNDIR", dir.path())
            .env("XENSTORED_ROOTDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.path().join("log")).unwrap())
            .spawn()
            .expect("xenstored starts");
        // It prints its pid when it is ready.
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(!line.is_empty(), "xenstored does not start");
        Store {
            child,
            dir,
            socket: "socket",
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join(self.socket)
    }

    /// Writes nodes as domain 0, with `xenstore-write`.
    pub fn write(&self, nodes: &[(&str, &OsStr)]) {
        for some in nodes.chunks(20) {
            let mut tool = Command::new("xenstore-write");
            tool.env("XENSTORED_PATH", self.socket());
            for (path, value) in some {
                tool.arg(path).arg(value);
            }
            let output = tool.output().expect("xenstore-utils is installed");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }

    /// Writes nodes in the format of `xenstore-ls -f`.
    pub fn restore(&self, recorded: &str) {
        let nodes: Vec<(&str, &OsStr)> = recorded
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (path, value) = line.split_once(" = ").expect("path = \"value\"");
                (path.trim(), OsStr::new(value.trim_matches('"')))
            })
            .collect();
        self.write(&nodes);
    }

    /// Writes the nodes of a domain that the toolstack writes.
    pub fn domain(&self, domid: u16, name: &str) {
        let home = format!("/local/domain/{domid}");
        self.write(&[
            (&format!("{home}/name"), OsStr::new(name)),
            (&format!("{home}/domid"), OsStr::new(&domid.to_string())),
        ]);
    }

    /// Writes a valid tube with these states of nock and tip.
    pub fn tube(&self, nock: u16, tip: u16, tid: u32, states: (&str, &str)) {
        let nock_node = format!("/local/domain/{nock}/data/nock/{tip}/{tid}");
        let tip_node = format!("/local/domain/{tip}/data/tip/{nock}/{tid}");
        self.restore(&format!(
            "{nock_node}/tip = \"{tip_node}\"\n{nock_node}/service = \"echo\"\n{nock_node}/version = \"1\"\n\
             {nock_node}/nonce = \"0123456789abcdef\"\n{nock_node}/state = \"{}\"\n\
             {tip_node}/nock = \"{nock_node}\"\n{tip_node}/version = \"1\"\n{tip_node}/nonce = \"0123456789abcdef\"\n\
             {tip_node}/tx-ring-ref = \"1024\"\n{tip_node}/rx-ring-ref = \"2048\"\n\
             {tip_node}/event-channel = \"17\"\n{tip_node}/tx-ring-bytes = \"65536\"\n\
             {tip_node}/rx-ring-bytes = \"65536\"\n{tip_node}/state = \"{}\"\n",
            states.0, states.1
        ));
    }

    /// The whole tree in the format of `xenstore-ls -f`.
    pub fn tree(&self) -> String {
        let mut tool = Command::new("xenstore-ls");
        let output = tool.arg("-f").env("XENSTORED_PATH", self.socket()).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    pub fn remove(&self, path: &str) {
        let mut tool = Command::new("xenstore-rm");
        assert!(
            tool.arg(path)
                .env("XENSTORED_PATH", self.socket())
                .status()
                .unwrap()
                .success()
        );
    }

    /// Runs the program under test.
    pub fn run(&self, columns: usize, args: &[&str]) -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_tubes"))
            .arg("--socket")
            .arg(self.socket())
            .args(args)
            .env("COLUMNS", columns.to_string())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        // All output is printable ASCII, whatever the store contains.
        for byte in output.stdout.iter().chain(&output.stderr) {
            assert!(matches!(byte, b' '..=b'~' | b'\n'), "{byte}");
        }
        output
    }

    /// Runs the program successfully and returns its output.
    pub fn output(&self, columns: usize, args: &[&str]) -> String {
        let output = self.run(columns, args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {text}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian's xenstored and the shim that replaces the hypervisor, built once in the build directory.
fn kit() -> &'static (PathBuf, PathBuf) {
    static KIT: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    KIT.get_or_init(|| {
        let sources = Path::new(NATIVE).join("hub/tests/shim");
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let root = cache.join("xen-4.17");
        let fetched = Command::new("sh")
            .arg(sources.join("fetch.sh"))
            .arg(&root)
            .status();
        assert!(
            fetched.is_ok_and(|status| status.success()),
            "fetch.sh fails"
        );
        let shim = cache.join(format!("no_hypervisor.{}.so", std::process::id()));
        let built = Command::new(std::env::var_os("CC").unwrap_or("cc".into()))
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .args([&shim, &sources.join("no_hypervisor.c")])
            .arg("-ldl")
            .status();
        assert!(
            built.is_ok_and(|status| status.success()),
            "a C compiler is needed"
        );
        // Rename in one step, because another test may be using the file.
        let kept = cache.join("no_hypervisor.so");
        std::fs::rename(&shim, &kept).unwrap();
        (root, kept)
    })
}

/// A store that accepts a connection and never replies.
pub fn silent() -> (TempDir, PathBuf, UnixListener) {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    assert!(UnixStream::connect(&socket).is_ok());
    (dir, socket, listener)
}

/// A proxy of a store that is slow to accept, with a backlog of one connection like xenstored: it
/// refuses a non-blocking connect at first.
pub fn slow_to_accept(store: PathBuf) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("socket");
    let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&listener, &SocketAddrUnix::new(&socket).unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let listener = UnixListener::from(listener);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let Ok((client, _)) = listener.accept() else {
                return;
            };
            let Ok(server) = UnixStream::connect(&store) else {
                return;
            };
            forward(&client, &server);
            forward(&server, &client);
        }
    });
    (dir, socket)
}

/// Forwards bytes in one direction until either end is closed.
fn forward(from: &UnixStream, to: &UnixStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}

/// The counters of one end of a tube: their path, messages and bytes per second.
pub struct Counters(pub &'static str, pub u64, pub u64);

/// A thread that publishes counters. Dropping it ends the thread.
pub struct Publisher(Option<std::thread::JoinHandle<()>>, Sender<()>);

impl Store {
    /// Publishes counters that grow evenly, as a VM does but more often. The time in the lines is
    /// simulated, so rates are exact.
    pub fn publish(&self, ends: Vec<Counters>) -> Publisher {
        let (quit, quitting) = channel();
        let socket = self.socket();
        let thread = std::thread::spawn(move || {
            for n in 1.. {
                let mut tool = Command::new("xenstore-write");
                tool.env("XENSTORED_PATH", &socket);
                for Counters(path, messages, bytes) in &ends {
                    tool.arg(path).arg(format!(
                        "time={} sent={} sent-bytes={} send-pending=4096 received=0 \
                         received-bytes=0 receive-pending=0 full-waits={} empty-waits=0 \
                         bells={} bells-spared=0",
                        n * 1000,
                        n * messages,
                        n * bytes,
                        n * 2,
                        n * 1500,
                    ));
                }
                assert!(tool.status().unwrap().success());
                if quitting.recv_timeout(Duration::from_millis(300))
                    != Err(RecvTimeoutError::Timeout)
                {
                    return;
                }
            }
        });
        Publisher(Some(thread), quit)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.1.send(());
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

/// A time in the past in the format of the `opened` node.
pub fn ago(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    (now.unwrap().as_secs() - seconds).to_string()
}
