//! The way to xenstored: the kernel's device, or the daemon's socket in domain 0.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::relay::relay;
use crate::{DOMID_MAX, Domid, Error, ErrorKind};

/// The kernel's device: for every domain.
pub(super) const DEVICE: &str = "/dev/xen/xenbus";
/// The daemon's socket, where it runs; the second is its older place.
const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];

/// How long xenstored may take to say who we are.
const PATIENCE: Duration = Duration::from_secs(5);

/// XS_READ, XS_WATCH_EVENT and XS_ERROR in xen/include/public/io/xs_wire.h.
const READ: u32 = 2;
pub(super) const WATCH_EVENT: u32 = 15;
pub(super) const ERROR: u32 = 16;
/// `struct xsd_sockmsg`: type, req_id, tx_id, len.
pub(super) const HEADER: usize = 16;
/// XENSTORE_PAYLOAD_MAX.
pub(super) const PAYLOAD_MAX: usize = 4096;

/// A new connection, non-blocking.
pub(super) fn connection() -> Result<OwnedFd, Error> {
    match connect_to_store()? {
        Transport::Device(device) => relay(device),
        Transport::Socket(socket) => Ok(socket),
    }
}

/// What there is. On the device some writes block.
enum Transport {
    Device(OwnedFd),
    Socket(OwnedFd),
}

/// The device first: it is what a domain that is not 0 has, and in domain 0 it
/// needs no daemon in the same file system.
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

/// Which domain this is: the toolstack writes it to the domain's own `domid`.
pub(super) fn domid() -> Result<Domid, Error> {
    let (Transport::Device(store) | Transport::Socket(store)) = connect_to_store()?;
    let text = ask(&store, READ, "domid")?;
    text.parse()
        .ok()
        .filter(|domid| *domid <= DOMID_MAX)
        .ok_or_else(|| nonsense(format!("domid is {text:?}")))
}

/// One request of one string on a connection that has seen none.
fn ask(store: &OwnedFd, operation: u32, argument: &str) -> Result<String, Error> {
    let posix = |errno| Error::posix(errno, format!("asking xenstore for {argument}"));
    let request = request(operation, argument);
    // A device or a socket that has just been opened takes these few bytes whole.
    if write(store, &request).map_err(posix)? != request.len() {
        return Err(posix(Errno::IO));
    }
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = Vec::new();
    loop {
        if let Some(reply) = reply(operation, &bytes)? {
            return reply.map_err(|word| {
                nonsense(format!("xenstore answers {word} when asked for {argument}"))
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
    let left = Timespec {
        tv_sec: left.as_secs() as i64,
        tv_nsec: left.subsec_nanos().into(),
    };
    match poll(&mut [PollFd::new(store, PollFlags::IN)], Some(&left)) {
        Ok(0) => Err(Errno::TIMEDOUT),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn request(operation: u32, argument: &str) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER + argument.len() + 1);
    for word in [operation, 0, 0, argument.len() as u32 + 1] {
        packet.extend_from_slice(&word.to_ne_bytes());
    }
    packet.extend_from_slice(argument.as_bytes());
    packet.push(0);
    packet
}

/// The value, or the word of an error, once all of it is there.
fn reply(operation: u32, bytes: &[u8]) -> Result<Option<Result<String, String>>, Error> {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let word = |at: usize| {
        let bytes = header[at..at + 4].try_into().expect("four bytes");
        u32::from_ne_bytes(bytes)
    };
    let (kind, len) = (word(0), word(12) as usize);
    if len > PAYLOAD_MAX || ![operation, ERROR].contains(&kind) {
        return Err(nonsense(format!("a reply of type {kind} and {len} bytes")));
    }
    let Some(payload) = payload.get(..len) else {
        return Ok(None);
    };
    let payload = payload.strip_suffix(b"\0").unwrap_or(payload);
    let text = String::from_utf8_lossy(payload).into_owned();
    Ok(Some(match kind {
        ERROR => Err(text),
        _ => Ok(text),
    }))
}

fn nonsense(what: String) -> Error {
    Error::new(ErrorKind::Posix(Errno::PROTO), what)
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn the_question_is_what_the_wire_format_says() {
        let mut expected = Vec::new();
        for word in [2u32, 0, 0, 6] {
            expected.extend_from_slice(&word.to_ne_bytes());
        }
        expected.extend_from_slice(b"domid\0");
        assert_eq!(request(READ, "domid"), expected);
    }

    #[test]
    fn an_answer_in_pieces_is_put_together() {
        let (ours, theirs) = pair();
        let whole = packet(READ, b"17");
        let answering = std::thread::spawn(move || {
            for byte in whole {
                write(&theirs, &[byte]).expect("written");
            }
            theirs
        });
        assert_eq!(ask(&ours, READ, "domid").expect("an answer"), "17");
        drop(answering.join());
    }

    #[test]
    fn an_error_an_end_and_nonsense_are_told() {
        for (bytes, atom) in [
            (packet(ERROR, b"ENOENT\0"), "eproto"),
            (packet(7, b"17"), "eproto"),
            (packet(READ, &[b'1'; PAYLOAD_MAX + 1]), "eproto"),
            (packet(READ, b"17")[..10].to_vec(), "epipe"),
        ] {
            let (ours, theirs) = pair();
            write(&theirs, &bytes).expect("written");
            rustix::net::shutdown(&theirs, rustix::net::Shutdown::Write).expect("shut");
            assert_eq!(ask(&ours, READ, "domid").unwrap_err().atom(), atom);
        }
    }
}
