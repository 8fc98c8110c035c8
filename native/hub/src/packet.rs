//! Messages of the hub's own protocol, as they come and go on non-blocking sockets.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg, sockopt,
};
use tube_platform::local::proto::MESSAGE_MAX;

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
    /// A message and the descriptors with it.
    Message(&'a [u8], Vec<OwnedFd>),
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

    /// Takes one message.
    ///
    /// Unlike a client, which trusts its hub, we leave no room for descriptors that no
    /// message of ours has: those that do not fit are let go by the kernel without ever
    /// being ours. (The control buffer is aligned, so one more than `most` may still come.)
    pub fn receive(&mut self, socket: impl AsFd, most: usize) -> Incoming<'_> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let space = if most == 0 {
            &mut [][..]
        } else {
            &mut space[..]
        };
        let mut control = RecvAncillaryBuffer::new(space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = retry_on_intr(|| {
            recvmsg(
                &socket,
                &mut [IoSliceMut::new(&mut self.buffer)],
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
        if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > most {
            return Incoming::Bad("descriptors that nobody asked for");
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
