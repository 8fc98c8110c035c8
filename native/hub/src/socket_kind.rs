//! The kinds of sockets that the hub listens on.

use rustix::net::SocketType;
use tube_platform::Domid;

use crate::rundir::domain_name;

/// What a listening socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SocketKind {
    /// `hub.sock`: control of any domain, for clients that can see the whole run directory.
    Hub,
    /// `control.sock`: control of one domain.
    Control,
    /// `xenstored.sock`: the xenstore wire protocol, with the rights of one domain.
    Store,
    /// `grants.sock`: grants of one domain.
    Grants,
    /// `evtchn.sock`: event channels of one domain.
    Evtchn,
}

impl SocketKind {
    /// The sockets that a domain has while it is alive.
    pub const PER_DOMAIN: [SocketKind; 4] = [
        SocketKind::Control,
        SocketKind::Store,
        SocketKind::Grants,
        SocketKind::Evtchn,
    ];

    /// The file's name.
    pub fn file_name(self) -> &'static str {
        match self {
            SocketKind::Hub => "hub.sock",
            SocketKind::Control => "control.sock",
            SocketKind::Store => "xenstored.sock",
            SocketKind::Grants => "grants.sock",
            SocketKind::Evtchn => "evtchn.sock",
        }
    }

    /// The socket's path relative to the run directory.
    pub fn relative_path(self, domid: Domid) -> String {
        match self {
            SocketKind::Hub => self.file_name().to_owned(),
            _ => format!("{}/{}", domain_name(domid), self.file_name()),
        }
    }

    /// Connections that one socket serves at a time: enough for the library and a few
    /// administrators, too few to exhaust the hub.
    pub fn max_connections(self) -> usize {
        match self {
            // Unidentified connections only; domains have a limit of their own.
            SocketKind::Hub => 128,
            SocketKind::Control => 16,
            SocketKind::Store => 64,
            SocketKind::Grants | SocketKind::Evtchn => 4,
        }
    }

    /// The store speaks a byte stream, the hub's own protocol uses packets.
    pub fn socket_type(self) -> SocketType {
        match self {
            SocketKind::Store => SocketType::STREAM,
            _ => SocketType::SEQPACKET,
        }
    }
}
