//! A thread between the store's device and whoever reads and writes it.
//!
//! `/dev/xen/xenbus` knows no non-blocking write: WATCH and UNWATCH are done by the
//! kernel within it, which takes a round trip to xenstored (`xenbus_file_write` in
//! drivers/xen/xenbus/xenbus_dev_frontend.c), and no poll says when. So the one side
//! gets a socket, which never makes it wait, and a thread of ours the device.
//!
//! The device also wants no more than one message in a write, and drops what follows
//! it. So it gets them one by one, however they come.
//!
//! Nor does it want a second request before the first is answered (`lib/tube/xenstore/transport.ex`
//! tells what it does then), while whoever asks need not wait: what has come is sent in
//! turn. Answers are held back while the next question is under way, a few at most, so
//! that who has asked ten things is woken once.
//!
//! And what the kernel refuses by itself, a watch above all, is the result of the write,
//! not a reply. Here it becomes the reply that xenstored would give, so that a domain
//! without a watch left to it keeps its connection.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::wire::{HEADER, PAYLOAD_MAX, WATCH_EVENT, error_reply, message_len};
use crate::Error;

/// Answers that wait for one another. A single caller's, mostly; somebody else's waits
/// for as many round trips at the most.
const BATCH_MAX: usize = 8;

/// Takes a device, and gives a non-blocking socket in its place. Each ends with the
/// other: to close the socket closes the device, which ends its watches and
/// transactions.
pub(super) fn relay(device: OwnedFd) -> Result<OwnedFd, Error> {
    let failed = |errno| Error::posix(errno, "a way to the store");
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    rustix::io::ioctl_fionbio(&theirs, true).map_err(failed)?;
    std::thread::Builder::new()
        .name("tube-xenbus".into())
        .spawn(move || {
            // Either end of file, or an error that the store's client can only answer
            // by a new connection.
            _ = run(&device, &ours);
        })
        .map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN)))?;
    Ok(theirs)
}

/// Both ways until one of them ends. The device is read when it has something: its
/// descriptor is non-blocking. Writes block, which is what this thread is for.
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
        // A client that does not read holds up no one but itself.
        if let Some(replies) = traffic.take_replies() {
            write_all(socket, &replies)?;
        }
    }
}

/// What is on its way.
#[derive(Default)]
struct Traffic {
    /// From the client, not yet sent. As many as its window lets it ask.
    requests: Vec<u8>,
    /// From the device, up to the end of a message.
    partial: Vec<u8>,
    /// For the client: whole messages.
    replies: Vec<u8>,
    /// Answers among them.
    reply_count: usize,
    /// A watch event is among them, for which nobody has asked.
    has_event: bool,
    /// The device has a request that it has not answered.
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

    /// The next request, if it may be sent now. It counts as sent.
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

    /// What the client is to be told now.
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

/// What xenstored calls an error, if it is one of a request and not of the connection.
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

    /// A device that kernel what each write of it was, and the client's side.
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
    fn the_device_gets_one_message_at_a_time_however_they_come() {
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
    fn the_next_request_goes_when_the_last_one_is_answered() {
        let (kernel, mut client) = pair();
        let all = [message(2, b"/a\0"), message(2, b"/b\0")];
        client.write_all(&all.concat()).unwrap();
        assert_eq!(device_write(&kernel), all[0]);
        // An event is no reply, and does not wait for one.
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
    fn few_answers_wait_for_others() {
        let (kernel, mut client) = pair();
        let request = message(2, b"/a\0");
        client.write_all(&request.repeat(BATCH_MAX + 1)).unwrap();
        let reply = message(2, b"value");
        for _ in 0..BATCH_MAX {
            assert_eq!(device_write(&kernel), request);
            kernel.send(&reply).unwrap();
        }
        // The last one is not answered.
        assert_eq!(device_write(&kernel), request);
        let all = reply.repeat(BATCH_MAX);
        assert_eq!(received_by(&client, all.len()), all);
    }

    #[test]
    fn an_answer_in_pieces_arrives_whole() {
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
    fn what_the_device_says_arrives() {
        let (kernel, client) = pair();
        let reply = message(2, b"value");
        kernel.send(&reply).unwrap();
        assert_eq!(received_by(&client, reply.len()), reply);
    }

    /// An eventfd takes no eight bytes that are all ones (EINVAL), which a type and a
    /// number can be.
    #[test]
    fn what_the_device_refuses_is_answered_and_the_connection_lives() {
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

    /// A device whose write takes its time is a datagram queue that is full.
    #[test]
    fn a_write_that_blocks_makes_the_client_wait_for_nothing() {
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
        // A datagram socket tells of the other's end to who sends.
        while kernel.send(b"x").is_ok() {}

        let (device, far) = UnixStream::pair().unwrap();
        let mut client = UnixStream::from(relay(device.into()).unwrap());
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(LIMIT).unwrap();
        drop(far);
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn a_message_that_no_store_takes_is_the_end() {
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
