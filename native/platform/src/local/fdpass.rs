//! Packets with descriptors over `SOCK_SEQPACKET`, for the hub and its clients.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::proto::FDS_MAX;

/// Sends one packet, whole or not at all. Blocks if the socket does.
///
/// # Errors
/// `EINVAL` for more than [`FDS_MAX`] descriptors; `EPIPE` (never `SIGPIPE`) if the other side has
/// closed; otherwise the system's error, including `EAGAIN`.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    if fds.len() > FDS_MAX {
        return Err(Errno::INVAL);
    }
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    retry_on_intr(|| {
        sendmsg(
            &socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    })
    .map(drop)
}

/// Receives one packet into `buffer`. Returns its length and its descriptors, which are
/// close-on-exec, or `None` at the end of file. An empty packet, which is valid in none of our
/// protocols, counts as the end of file. Blocks if the socket does.
///
/// # Errors
/// `EMSGSIZE` for a packet longer than `buffer`, `EBADMSG` for one with more than `max_fds`
/// descriptors, `EMFILE` if the system could not deliver all of them; otherwise the system's error,
/// including `EAGAIN`. On an error all received descriptors are closed, so a sender can neither
/// fill our descriptor table nor make us accept half a message.
pub fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    max_fds: usize,
) -> Result<Option<(usize, Vec<OwnedFd>)>, Errno> {
    match receive_packet(socket, buffer)? {
        Packet {
            truncated: true, ..
        } => Err(Errno::MFILE),
        Packet { fds, .. } if fds.len() > max_fds => Err(Errno::BADMSG),
        Packet { len: 0, .. } => Ok(None),
        Packet { len, fds, .. } => Ok(Some((len, fds))),
    }
}

/// A packet as received.
pub(super) struct Packet {
    /// Length in bytes; zero at the end of file.
    pub(super) len: usize,
    pub(super) fds: Vec<OwnedFd>,
    /// The system could not deliver all of its descriptors.
    pub(super) truncated: bool,
}

/// Like [`receive`], but also returns a packet that lost descriptors, so that the caller can undo
/// what it announces.
pub(super) fn receive_packet(socket: impl AsFd, buffer: &mut [u8]) -> Result<Packet, Errno> {
    // There is room for the most that a packet can carry, so truncated control data always means
    // that the system ran out of descriptors.
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let packet = retry_on_intr(|| {
        recvmsg(
            &socket,
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if packet.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok(Packet {
        len: packet.bytes,
        fds,
        truncated: packet.flags.contains(ReturnFlags::CTRUNC),
    })
}
