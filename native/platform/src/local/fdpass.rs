//! Packets with descriptors over `SOCK_SEQPACKET`, shared by the hub and us.

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
/// `EINVAL` for more than [`FDS_MAX`] descriptors; `EPIPE` (never the signal)
/// when the other side has closed; else what the system says, `EAGAIN` included.
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

/// Receives one packet into `buffer` and gives its length and descriptors,
/// which are close-on-exec. Blocks if the socket does. `None` is the end of
/// file; a packet of no bytes, which no protocol of ours has, counts as that.
///
/// # Errors
/// `EMSGSIZE` for a packet longer than `buffer`, `EBADMSG` for one with more
/// than `max_fds` descriptors, `EMFILE` when the system could not give us all of
/// them; else what the system says, `EAGAIN` included. Whatever descriptors had
/// come are closed, so a sender can neither fill our table nor make us take
/// half a message for a whole one.
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

/// A packet as it came.
pub(super) struct Packet {
    /// Bytes of it; zero at the end of file.
    pub(super) len: usize,
    pub(super) fds: Vec<OwnedFd>,
    /// The system could not give us all of its descriptors.
    pub(super) truncated: bool,
}

/// As [`receive`], but a packet that lost descriptors is still given, so that
/// what it says can be undone.
pub(super) fn receive_packet(socket: impl AsFd, buffer: &mut [u8]) -> Result<Packet, Errno> {
    // Room for all that a packet can carry. So control data cut short means
    // that the system ran out of descriptors, and nothing else.
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
