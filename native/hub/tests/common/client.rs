//! Clients of the hub's own protocol.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tube_hub::probe::wait_readable;
use tube_platform::Domid;
use tube_platform::local::fdpass;
use tube_platform::local::proto::{MESSAGE_MAX, Reply, Request};

use super::deadline;
use super::store::Store;

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
    pub(super) run: PathBuf,
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
