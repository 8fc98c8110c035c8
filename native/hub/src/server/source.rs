//! The descriptors in the event loop.

use std::fmt;
use std::os::fd::OwnedFd;

use tube_platform::Domid;

use crate::socket_kind::SocketKind;
use crate::store::ConnId;

/// A descriptor in the event loop.
pub enum Source {
    /// Becomes readable when the hub is to stop.
    Stop(OwnedFd),
    /// A listening socket.
    Listener {
        socket: OwnedFd,
        kind: SocketKind,
        domid: Domid,
    },
    /// A connection that speaks the hub's own protocol.
    Client { socket: OwnedFd, role: Role },
    /// A connection to the store.
    Stream {
        socket: OwnedFd,
        conn: ConnId,
        domid: Domid,
    },
}

/// What a client's connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has not sent HELLO yet. The domid, if it connected to that domain's `control.sock`.
    Unidentified(Option<Domid>),
    /// The domain lives as long as this connection.
    Control(Domid),
    /// Grants and maps pages for that domain.
    Grants(Domid),
    /// Allocates and binds event channels for that domain.
    Evtchn(Domid),
}

impl Role {
    /// The domain that is charged. Clients of `hub.sock` see everything, as domain 0 does.
    pub fn domid(self) -> Domid {
        match self {
            Role::Unidentified(bound) => bound.unwrap_or(0),
            Role::Control(domid) | Role::Grants(domid) | Role::Evtchn(domid) => domid,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Unidentified(None) => f.write_str("an unidentified connection"),
            Role::Unidentified(Some(domid)) => {
                write!(f, "an unidentified connection of domain {domid}")
            }
            Role::Control(domid) => write!(f, "domain {domid}"),
            Role::Grants(domid) => write!(f, "a grants connection of domain {domid}"),
            Role::Evtchn(domid) => write!(f, "an event channel connection of domain {domid}"),
        }
    }
}
