//! Messages of the hub's own protocol, as they come and go on non-blocking sockets.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg, sockopt,
};
use tube_platform::local::proto::{FDS_MAX, MESSAGE_MAX};

/// Bytes that wait to be read by one client, as the kernel counts them (it doubles the
/// number). Room for the longest reply, and for few of them: descriptors under way are
/// limited for our user as a whole, and every reply to MAP may carry many.
const UNREAD: usize = MESSAGE_MAX;

/// What a client has for us.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// Nothing yet.
    Nothing,
    /// End of file.
    End,
    /// A message and the memfds with it.
    Message(&'a [u8], Vec<OwnedFd>),
    /// Descriptors that are not what a message can have. Closing them may take time.
    Foreign(Vec<OwnedFd>),
    /// Something that is no message, or a connection that is broken.
    Bad(&'static str),
}

/// What will become of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// It will go out.
    Open,
    /// Not before the client has read.
    Full,
    /// It never will.
    Hopeless,
}

/// The buffer that messages are received into, one at a time.
#[derive(Debug)]
pub struct Packets {
    buffer: Box<[u8]>,
}

impl Default for Packets {
    fn default() -> Packets {
        Packets {
            buffer: vec![0; MESSAGE_MAX].into(),
        }
    }
}

impl Packets {
    /// Limits what may wait unread on a new connection.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn prepare(socket: impl AsFd) -> Result<(), Errno> {
        sockopt::set_socket_send_buffer_size(socket, UNREAD)
    }

    /// Whether a reply will go out: a request is only taken when it does, so nothing is ever
    /// kept for a client that does not read.
    pub fn outlook(socket: impl AsFd) -> Outlook {
        let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // A failure leaves no flags.
        let _ = poll(&mut fds, Some(&now));
        let flags = fds[0].revents();
        if flags.contains(PollFlags::OUT) {
            Outlook::Open
        } else if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
            // Shut down, not closed: what we sent is still there and keeps it full.
            Outlook::Hopeless
        } else {
            Outlook::Full
        }
    }

    /// Takes one message, or of a byte stream at most `limit` bytes, with at most `most`
    /// memfds.
    ///
    /// There is room for all descriptors that can come. Those that found none would be closed
    /// by the kernel then and there, which can block for ever (see `background_close`).
    pub fn receive(&mut self, socket: impl AsFd, most: usize, limit: usize) -> Incoming<'_> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let limit = limit.min(self.buffer.len());
        let received = retry_on_intr(|| {
            recvmsg(
                &socket,
                &mut [IoSliceMut::new(&mut self.buffer[..limit])],
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
        // That can be asked without going to a file system that may never answer, and only
        // memfds have an answer.
        let memory = |fd: &OwnedFd| rustix::fs::fcntl_get_seals(fd).is_ok();
        if fds.len() > most || !fds.iter().all(memory) {
            return Incoming::Foreign(fds);
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Incoming::Bad("descriptors that we have no room for");
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Incoming::Bad("message too long");
        }
        match received.bytes {
            // A packet of no bytes looks like the end, and is no message either.
            0 => Incoming::End,
            length => Incoming::Message(&self.buffer[..length], fds),
        }
    }
}
