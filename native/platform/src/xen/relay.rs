//! A thread between xenstore's device and its client.
//!
//! `/dev/xen/xenbus` has no non-blocking write: the kernel processes WATCH and UNWATCH within the
//! write, which takes a round trip to xenstored (`xenbus_file_write` in
//! drivers/xen/xenbus/xenbus_dev_frontend.c), and poll does not tell when a write would block. So
//! the client gets a socket, which never blocks it, and a thread of ours writes the device.
//!
//! The device accepts one message per write and discards any bytes after it. The relay writes
//! messages one by one, however they arrive.
//!
//! The device must not get a second request before it has replied to the first
//! (`lib/tube/xenstore/transport.ex` says why). The client need not wait for that: the relay queues
//! its requests. It holds replies back while the next request is in flight, up to a limit, so that
//! a client with ten requests wakes up once.
//!
//! When the kernel itself rejects a request, above all a watch, the error is the result of the
//! write and not a reply. The relay turns it into the reply that xenstored would send, so that a
//! domain without watches left keeps its connection.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::wire::{HEADER, PAYLOAD_MAX, WATCH_EVENT, error_reply, message_len};
use crate::Error;

/// Most replies to hold back. They usually belong to one caller; another caller's reply is delayed
/// by this many round trips at most.
const BATCH_MAX: usize = 8;

/// Wraps a device in a non-blocking socket. Each ends with the other: closing the socket closes the
/// device, which ends its watches and transactions.
pub(super) fn relay(device: OwnedFd) -> Result<OwnedFd, Error> {
    let failed = |errno| Error::posix(errno, "starting the relay to xenstore");
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    rustix::io::ioctl_fionbio(&theirs, true).map_err(failed)?;
    std::thread::Builder::new()
        .name("tube-xenbus".into())
        .spawn(move || {
            // Either an end of file, or an error after which the client must reconnect anyway.
            _ = run(&device, &ours);
        })
        .map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN)))?;
    Ok(theirs)
}

/// Relays in both directions until one of them ends. Reads of the device do not block. Writes do,
/// which is why this is a thread.
fn run(device: &OwnedFd, socket: &OwnedFd) -> Result<(), Errno> {
    let mut traffic = Traffic::default();
    let mut buffer = [0; HEADER + PAYLOAD_MAX];
    loop {
        let mut ready = [
            PollFd::new(device, PollFlags::IN),
            PollFd::new(socket, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut ready, None))?;
        let [from_device, from_socket] = ready.map(|fd| !fd.revents().is_empty());
        if from_device {
            match read(device, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => traffic.received(&buffer[..count])?,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        if from_socket {
            match retry_on_intr(|| read(socket, &mut buffer))? {
                0 => return Ok(()),
                count => traffic.requests.extend_from_slice(&buffer[..count]),
            }
        }
        while let Some(request) = traffic.next()? {
            if let Err(errno) = write_all(device, &request) {
                let name = error_name(errno).ok_or(errno)?;
                traffic.refused(&request, name);
            }
        }
        // This blocks if the client does not read, which delays nobody else.
        if let Some(replies) = traffic.take_replies() {
            write_all(socket, &replies)?;
        }
    }
}

/// The messages in transit.
#[derive(Default)]
struct Traffic {
    /// From the client, not sent yet. The client's window limits them.
    requests: Vec<u8>,
    /// From the device: an incomplete message.
    partial: Vec<u8>,
    /// For the client: complete messages.
    replies: Vec<u8>,
    /// How many of them are replies.
    reply_count: usize,
    /// One of them is a watch event, which replies to no request.
    has_event: bool,
    /// The device has not replied to the last request.
    in_flight: bool,
}

impl Traffic {
    fn received(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.partial.extend_from_slice(bytes);
        while let Some(length) = message_len(&self.partial)? {
            if self.partial.starts_with(&WATCH_EVENT.to_ne_bytes()) {
                self.has_event = true;
            } else {
                self.reply_count += 1;
                self.in_flight = false;
            }
            self.replies.extend(self.partial.drain(..length));
        }
        Ok(())
    }

    /// The next request, if it may be sent now. It counts as in flight.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Errno> {
        if self.in_flight {
            return Ok(None);
        }
        let Some(length) = message_len(&self.requests)? else {
            return Ok(None);
        };
        self.in_flight = true;
        Ok(Some(self.requests.drain(..length).collect()))
    }

    fn refused(&mut self, request: &[u8], name: &str) {
        self.in_flight = false;
        self.reply_count += 1;
        self.replies.extend_from_slice(&error_reply(request, name));
    }

    /// The messages to send to the client now.
    fn take_replies(&mut self) -> Option<Vec<u8>> {
        let due = self.has_event || !self.in_flight || self.reply_count >= BATCH_MAX;
        if !due || self.replies.is_empty() {
            return None;
        }
        self.reply_count = 0;
        self.has_event = false;
        Some(std::mem::take(&mut self.replies))
    }
}

/// xenstored's name for an error of a request. None for an error of the connection.
fn error_name(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::INVAL => "EINVAL",
        Errno::ACCESS => "EACCES",
        Errno::EXIST => "EEXIST",
        Errno::NOENT => "ENOENT",
        Errno::NOMEM => "ENOMEM",
        Errno::NOSPC => "ENOSPC",
        Errno::TOOBIG => "E2BIG",
        Errno::AGAIN => "EAGAIN",
        Errno::BUSY => "EBUSY",
        Errno::PERM => "EPERM",
        _ => return None,
    })
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let count = retry_on_intr(|| write(to, bytes))?;
        bytes = &bytes[count..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::time::Duration;

    const LIMIT: Option<Duration> = Some(Duration::from_secs(20));

    fn message(kind: u32, payload: &[u8]) -> Vec<u8> {
        let words = [kind, 7, 0, payload.len() as u32].map(u32::to_ne_bytes);
        [words.as_flattened(), payload].concat()
    }

    /// The kernel's side of a device, which receives each write as one datagram, and the client's
    /// side.
    fn pair() -> (UnixDatagram, UnixStream) {
        let (device, kernel) = UnixDatagram::pair().unwrap();
        kernel.set_read_timeout(LIMIT).unwrap();
        let client = UnixStream::from(relay(device.into()).unwrap());
        (kernel, client)
    }

    fn device_write(kernel: &UnixDatagram) -> Vec<u8> {
        let mut buffer = [0; 8192];
        let count = kernel.recv(&mut buffer).unwrap();
        buffer[..count].to_vec()
    }

    fn received_by(mut client: &UnixStream, count: usize) -> Vec<u8> {
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(LIMIT).unwrap();
        let mut got = vec![0; count];
        client.read_exact(&mut got).unwrap();
        client.set_nonblocking(true).unwrap();
        got
    }

    #[test]
    fn the_device_gets_one_message_per_write() {
        let (kernel, mut client) = pair();
        let all = [
            message(4, b"/path\0token\0"),
            message(6, b"\0"),
            message(11, &[b'v'; PAYLOAD_MAX]),
            message(99, b""),
        ];
        let reply = message(6, b"OK\0");
        // All at once, then byte by byte.
        client.write_all(&all.concat()).unwrap();
        for expected in &all {
            assert_eq!(device_write(&kernel), *expected);
            kernel.send(&reply).unwrap();
        }
        for byte in all[..2].concat() {
            client.write_all(&[byte]).unwrap();
        }
        for expected in &all[..2] {
            assert_eq!(device_write(&kernel), *expected);
            kernel.send(&reply).unwrap();
        }
    }

    #[test]
    fn a_request_is_sent_after_the_reply_to_the_last() {
        let (kernel, mut client) = pair();
        let all = [message(2, b"/a\0"), message(2, b"/b\0")];
        client.write_all(&all.concat()).unwrap();
        assert_eq!(device_write(&kernel), all[0]);
        // An event is not a reply, and is not held back.
        let event = message(WATCH_EVENT, b"/path\0token\0");
        kernel.send(&event).unwrap();
        assert_eq!(received_by(&client, event.len()), event);
        kernel.set_nonblocking(true).unwrap();
        assert!(kernel.recv(&mut [0; 64]).is_err());
        kernel.set_nonblocking(false).unwrap();
        let reply = message(2, b"value");
        kernel.send(&reply).unwrap();
        assert_eq!(device_write(&kernel), all[1]);
        kernel.send(&reply).unwrap();
        assert_eq!(
            received_by(&client, 2 * reply.len()),
            [&reply[..], &reply].concat()
        );
    }

    #[test]
    fn a_full_batch_of_replies_is_sent() {
        let (kernel, mut client) = pair();
        let request = message(2, b"/a\0");
        client.write_all(&request.repeat(BATCH_MAX + 1)).unwrap();
        let reply = message(2, b"value");
        for _ in 0..BATCH_MAX {
            assert_eq!(device_write(&kernel), request);
            kernel.send(&reply).unwrap();
        }
        // The last request gets no reply.
        assert_eq!(device_write(&kernel), request);
        let all = reply.repeat(BATCH_MAX);
        assert_eq!(received_by(&client, all.len()), all);
    }

    #[test]
    fn a_reply_in_pieces_arrives_whole() {
        let (device, mut far) = UnixStream::pair().unwrap();
        far.set_read_timeout(LIMIT).unwrap();
        let mut client = UnixStream::from(relay(device.into()).unwrap());
        let request = message(2, b"/a\0");
        client.write_all(&request.repeat(2)).unwrap();
        let mut got = vec![0; request.len()];
        for _ in 0..2 {
            far.read_exact(&mut got).unwrap();
            assert_eq!(got, request);
            for byte in message(2, b"value") {
                far.write_all(&[byte]).unwrap();
            }
        }
        let all = message(2, b"value").repeat(2);
        assert_eq!(received_by(&client, all.len()), all);
    }

    #[test]
    fn a_reply_without_a_request_arrives() {
        let (kernel, client) = pair();
        let reply = message(2, b"value");
        kernel.send(&reply).unwrap();
        assert_eq!(received_by(&client, reply.len()), reply);
    }

    /// An eventfd rejects eight bytes of ones (EINVAL), which a message's type and req_id can be.
    #[test]
    fn a_failed_write_becomes_an_error_reply() {
        use rustix::event::{EventfdFlags, eventfd};
        let device = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let mut client = UnixStream::from(relay(device).unwrap());
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(LIMIT).unwrap();
        let words = [u32::MAX, u32::MAX, 9, 3].map(u32::to_ne_bytes);
        let request = [words.as_flattened(), b"/a\0"].concat();
        let reply = [16, u32::MAX, 9, 7].map(u32::to_ne_bytes);
        let reply = [reply.as_flattened(), b"EINVAL\0"].concat();
        for _ in 0..2 {
            client.write_all(&request).unwrap();
            let mut got = vec![0; reply.len()];
            client.read_exact(&mut got).unwrap();
            assert_eq!(got, reply);
        }
    }

    /// A full datagram queue acts as a device whose write blocks.
    #[test]
    fn a_blocked_device_does_not_block_the_client() {
        let (device, kernel) = UnixDatagram::pair().unwrap();
        kernel.set_read_timeout(LIMIT).unwrap();
        device.set_nonblocking(true).unwrap();
        let mut full = 0;
        while device.send(b"full").is_ok() {
            full += 1;
        }
        device.set_nonblocking(false).unwrap();
        let mut client = UnixStream::from(relay(device.into()).unwrap());
        let watch = message(4, b"/path\0token\0");
        for _ in 0..100 {
            client.write_all(&watch).unwrap();
        }
        for _ in 0..full {
            assert_eq!(device_write(&kernel), b"full");
        }
        for _ in 0..100 {
            assert_eq!(device_write(&kernel), watch);
            kernel.send(&message(4, b"OK\0")).unwrap();
        }
    }

    #[test]
    fn each_side_ends_with_the_other() {
        let (kernel, client) = pair();
        drop(client);
        // Sending on a datagram socket fails once the other end is closed.
        while kernel.send(b"x").is_ok() {}

        let (device, far) = UnixStream::pair().unwrap();
        let mut client = UnixStream::from(relay(device.into()).unwrap());
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(LIMIT).unwrap();
        drop(far);
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn an_oversized_message_ends_the_connection() {
        let (kernel, mut client) = pair();
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(LIMIT).unwrap();
        client
            .write_all(&message(2, &[0; PAYLOAD_MAX + 1])[..HEADER])
            .unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        drop(kernel);
    }
}
