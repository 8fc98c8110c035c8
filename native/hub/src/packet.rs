//! Packets of the hub's own protocol on non-blocking sockets.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg, sockopt,
};
use tube_platform::local::proto::{FDS_MAX, MESSAGE_MAX};

/// Send buffer of a connection, in bytes as the kernel counts them (it doubles the number). It has
/// room for the longest reply but for few of them: the kernel limits descriptors in flight per
/// user, and every reply to MAP may carry many.
const SEND_BUFFER: usize = MESSAGE_MAX;

/// What arrived on a connection.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// Nothing yet.
    Nothing,
    /// End of file.
    End,
    /// A message with its memfds.
    Message(&'a [u8], Vec<OwnedFd>),
    /// Descriptors that the message may not carry. Closing them may block.
    UnexpectedFds(Vec<OwnedFd>),
    /// An invalid packet, and why.
    Invalid(&'static str),
}

/// Whether a reply can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendSpace {
    /// Now.
    Available,
    /// After the client has read something.
    Full,
    /// Never.
    Closed,
}

/// Limits the unread replies on a new connection.
///
/// # Errors
/// Those of the system call.
pub fn limit_unread(socket: impl AsFd) -> Result<(), Errno> {
    sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER)
}

/// Whether a reply can be sent. The hub takes a request only if it can reply, so it never queues
/// replies for a client that does not read.
pub fn send_space(socket: impl AsFd) -> SendSpace {
    let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // On failure there are no flags.
    let _ = poll(&mut fds, Some(&now));
    let flags = fds[0].revents();
    if flags.contains(PollFlags::OUT) {
        SendSpace::Available
    } else if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
        // The client has shut the socket down without reading: the buffer stays full.
        SendSpace::Closed
    } else {
        SendSpace::Full
    }
}

/// The buffer that packets are received into, one at a time.
#[derive(Debug)]
pub struct ReceiveBuffer {
    bytes: Box<[u8]>,
}

impl Default for ReceiveBuffer {
    fn default() -> ReceiveBuffer {
        ReceiveBuffer {
            bytes: vec![0; MESSAGE_MAX].into(),
        }
    }
}

impl ReceiveBuffer {
    /// Receives one packet, or at most `limit` bytes of a stream, with at most `max_fds` memfds.
    ///
    /// The control buffer has room for all descriptors that one message can carry. The kernel would
    /// close those without room in this call, which can block for ever (see `background_close`).
    pub fn receive(&mut self, socket: impl AsFd, max_fds: usize, limit: usize) -> Incoming<'_> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let limit = limit.min(self.bytes.len());
        let received = retry_on_intr(|| {
            recvmsg(
                &socket,
                &mut [IoSliceMut::new(&mut self.bytes[..limit])],
                &mut control,
                flags,
            )
        });
        let received = match received {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Incoming::Nothing,
            Err(_) => return Incoming::End,
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(given) = message {
                fds.extend(given);
            }
        }
        // Only memfds have seals, and reading them never blocks in a file system.
        let is_memfd = |fd: &OwnedFd| rustix::fs::fcntl_get_seals(fd).is_ok();
        if fds.len() > max_fds || !fds.iter().all(is_memfd) {
            return Incoming::UnexpectedFds(fds);
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Incoming::Invalid("too many descriptors");
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Incoming::Invalid("message too long");
        }
        match received.bytes {
            // An empty packet is no message, and looks like end of file.
            0 => Incoming::End,
            length => Incoming::Message(&self.bytes[..length], fds),
        }
    }
}
