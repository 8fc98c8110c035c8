//! Owners of directories and sockets, and the check of connecting users.

use std::os::fd::AsFd;

use rustix::process::geteuid;

/// The user and group that a domain's directory belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Checks that the peer of `socket` is root, the hub's own user or the domain's owner. The modes of
/// directories and sockets ensure the same, unless a socket was passed on or its mode was changed.
///
/// # Errors
/// The uid that is refused; all ones if it is unknown.
pub fn check_peer(socket: impl AsFd, owner: Option<Owner>) -> Result<(), u32> {
    let uid = match rustix::net::sockopt::socket_peercred(socket) {
        Ok(credentials) => credentials.uid.as_raw(),
        Err(_) => return Err(u32::MAX),
    };
    if uid == 0 || uid == geteuid().as_raw() || owner.is_some_and(|owner| owner.uid == uid) {
        Ok(())
    } else {
        Err(uid)
    }
}
