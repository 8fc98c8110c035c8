//! Whose a directory or a socket is, and who may speak on it.

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

/// Whether the process at the other end of `socket` may use it: root, the hub's own user, or
/// the domain's owner. The modes of directories and sockets say the same; this also holds for
/// a socket that was passed on or whose mode somebody changed.
///
/// # Errors
/// The uid that may not, or all ones if the kernel did not tell.
pub fn admit(socket: impl AsFd, owner: Option<Owner>) -> Result<(), u32> {
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
