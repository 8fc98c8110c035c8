//! Connections to xenstored: through the kernel's device, or the daemon's socket in domain 0.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::relay::relay;
use super::wire::{self, HEADER, PAYLOAD_MAX, READ};
use crate::{DOMID_MAX, Domid, Error};

/// The kernel's device, which every domain has.
pub(super) const DEVICE: &str = "/dev/xen/xenbus";
/// Paths of the daemon's socket in domain 0; the second is the older one.
const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];

/// Time limit for a reply to [`query`].
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a non-blocking connection.
pub(super) fn connection() -> Result<OwnedFd, Error> {
    match connect_to_store()? {
        Transport::Device(device) => relay(device),
        Transport::Socket(socket) => Ok(socket),
    }
}

/// A connection to xenstored. Some writes to the device block.
enum Transport {
    Device(OwnedFd),
    Socket(OwnedFd),
}

/// Tries the device first: only it exists outside domain 0, and in domain 0 it works without access
/// to the daemon's file system.
fn connect_to_store() -> Result<Transport, Error> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let device = retry_on_intr(|| open(DEVICE, flags, Mode::empty()));
    let errno = match device {
        Ok(fd) => return Ok(Transport::Device(fd)),
        Err(errno) => errno,
    };
    SOCKETS
        .iter()
        .find_map(|path| dial(path).ok().map(Transport::Socket))
        .ok_or_else(|| Error::posix(errno, format!("opening {DEVICE}")))
}

fn dial(path: &str) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// The domid of this domain, which the toolstack writes to the node `domid`.
pub(super) fn domid() -> Result<Domid, Error> {
    let (Transport::Device(store) | Transport::Socket(store)) = connect_to_store()?;
    let text = query(&store, READ, "domid")?;
    text.parse()
        .ok()
        .filter(|domid| *domid <= DOMID_MAX)
        .ok_or_else(|| wire::unexpected(format!("xenstore has {text:?} as domid")))
}

/// Sends one request with one string on a fresh connection, and returns the value of the reply.
pub(crate) fn query(store: &OwnedFd, operation: u32, argument: &str) -> Result<String, Error> {
    let posix = |errno| Error::posix(errno, format!("querying xenstore for {argument}"));
    let request = wire::request(operation, argument);
    // A newly opened device or socket accepts these few bytes in one write.
    if write(store, &request).map_err(posix)? != request.len() {
        return Err(posix(Errno::IO));
    }
    let deadline = Instant::now() + REPLY_TIMEOUT;
    let mut bytes = Vec::new();
    loop {
        if let Some(reply) = wire::reply(operation, &bytes)? {
            return reply.map_err(|word| {
                wire::unexpected(format!("xenstore replied {word} to a query for {argument}"))
            });
        }
        let mut some = [0; HEADER + PAYLOAD_MAX];
        match read(store, &mut some) {
            Ok(0) => return Err(posix(Errno::PIPE)),
            Ok(n) => bytes.extend_from_slice(&some[..n]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                await_input(store, deadline).map_err(posix)?;
            }
            Err(errno) => return Err(posix(errno)),
        }
    }
}

fn await_input(store: &OwnedFd, deadline: Instant) -> Result<(), Errno> {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).expect("a few seconds");
    match poll(&mut [PollFd::new(store, PollFlags::IN)], Some(&left)) {
        Ok(0) => Err(Errno::TIMEDOUT),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xen::wire::ERROR;
    use rustix::net::socketpair;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("a pair")
    }

    fn packet(kind: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        for word in [kind, 0, 0, payload.len() as u32] {
            packet.extend_from_slice(&word.to_ne_bytes());
        }
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn a_reply_in_pieces_is_reassembled() {
        let (ours, theirs) = pair();
        let whole = packet(READ, b"17");
        let writer = std::thread::spawn(move || {
            for byte in whole {
                write(&theirs, &[byte]).expect("written");
            }
            theirs
        });
        assert_eq!(query(&ours, READ, "domid").expect("a reply"), "17");
        drop(writer.join());
    }

    #[test]
    fn an_error_an_end_and_a_malformed_reply_are_errors() {
        for (bytes, atom) in [
            (packet(ERROR, b"ENOENT\0"), "eproto"),
            (packet(7, b"17"), "eproto"),
            (packet(READ, &[b'1'; PAYLOAD_MAX + 1]), "eproto"),
            (packet(READ, b"17")[..10].to_vec(), "epipe"),
        ] {
            let (ours, theirs) = pair();
            write(&theirs, &bytes).expect("written");
            rustix::net::shutdown(&theirs, rustix::net::Shutdown::Write).expect("shut");
            assert_eq!(query(&ours, READ, "domid").unwrap_err().atom(), atom);
        }
    }
}
