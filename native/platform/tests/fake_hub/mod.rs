//! A hub whose replies the test scripts.

// Each test binary uses a part of this module.
#![allow(dead_code)]

use std::iter;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    shutdown, socket_with,
};
use tempfile::TempDir;
use tube_platform::Domid;
use tube_platform::local::proto::{FDS_MAX, MESSAGE_MAX, Reply, Request, VERSION};
use tube_platform::local::{Local, fdpass};

/// The domain of every client.
pub const DOMID: Domid = 5;

/// A packet to send, with its descriptors.
pub type Packet = (Vec<u8>, Vec<OwnedFd>);

/// The packets to send for a request, in order; `None` closes the connection.
pub type Script = dyn Fn(u32, &Request, Vec<OwnedFd>) -> Option<Vec<Packet>> + Send + Sync;

/// A run directory, with a thread for each of its sockets.
pub struct FakeHub {
    dir: TempDir,
    listeners: Vec<Arc<OwnedFd>>,
    /// Requests seen by the script, in order per connection.
    seen: mpsc::Receiver<Request>,
}

impl FakeHub {
    /// Runs `script` for every request. If it returns no packets for HELLO, the hub sends WELCOME.
    pub fn start(
        script: impl Fn(u32, &Request) -> Option<Vec<Packet>> + Send + Sync + 'static,
    ) -> Self {
        Self::with_descriptors(move |seq, request, _| script(seq, request))
    }

    /// The same, for a script that takes the descriptors of requests.
    pub fn with_descriptors(
        script: impl Fn(u32, &Request, Vec<OwnedFd>) -> Option<Vec<Packet>> + Send + Sync + 'static,
    ) -> Self {
        let dir = run_dir();
        let home = dir.path().join(format!("dom{DOMID}"));
        std::fs::create_dir(&home).unwrap();
        let script: Arc<Script> = Arc::new(script);
        let (sender, seen) = mpsc::channel();
        let sockets = [
            dir.path().join("hub.sock"),
            home.join("grants.sock"),
            home.join("evtchn.sock"),
        ];
        let listeners = sockets
            .iter()
            .map(|path| {
                let listener = Arc::new(listener(path, SocketType::SEQPACKET));
                let (script, sender) = (Arc::clone(&script), sender.clone());
                let socket = Arc::clone(&listener);
                thread::spawn(move || {
                    while let Ok(connection) = accept_with(&*socket, SocketFlags::CLOEXEC) {
                        serve(&connection, &*script, &sender);
                    }
                });
                listener
            })
            .collect();
        Self {
            dir,
            listeners,
            seen,
        }
    }

    /// The run directory.
    pub fn run(&self) -> &Path {
        self.dir.path()
    }

    /// The requests, until none has arrived for a while.
    pub fn requests(&self) -> impl Iterator<Item = Request> {
        iter::from_fn(|| self.seen.recv_timeout(Duration::from_secs(10)).ok())
    }

    /// The next request that is a notice.
    pub fn notice(&self) -> Option<Request> {
        self.requests().find(|request| !request.has_reply())
    }

    /// Attaches to this hub.
    pub fn attach(&self) -> Local {
        Local::attach(self.run(), None).unwrap()
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        for listener in &self.listeners {
            // Ends the accept in the listener's thread.
            let _ = shutdown(&**listener, Shutdown::Both);
        }
    }
}

fn serve(connection: &OwnedFd, script: &Script, seen: &mpsc::Sender<Request>) {
    let mut buffer = vec![0; MESSAGE_MAX];
    while let Ok(Some((len, fds))) = fdpass::receive(connection, &mut buffer, FDS_MAX) {
        let (seq, request) = Request::decode(&buffer[..len]).unwrap();
        let Some(mut packets) = script(seq, &request, fds) else {
            return;
        };
        if packets.is_empty() && matches!(request, Request::Hello { .. }) {
            packets.push((welcome().encode(seq), Vec::new()));
        }
        let _ = seen.send(request);
        for (bytes, fds) in packets {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            fdpass::send(connection, &bytes, &fds).unwrap();
        }
    }
}

/// The valid reply to HELLO.
pub fn welcome() -> Reply {
    Reply::Welcome {
        version: VERSION,
        domid: DOMID,
    }
}

/// A directory with the permissions of a run directory.
pub fn run_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o700);
    dir
}

/// Sets permissions.
pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A listening socket.
pub fn listener(path: &PathBuf, kind: SocketType) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    listen(&socket, 16).unwrap();
    socket
}
