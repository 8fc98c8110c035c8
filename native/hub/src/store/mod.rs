//! The store of the virtual domains: a xenstored without input or output.

#![allow(dead_code)]

mod quota;

pub use quota::Quota;

/// Names one connection to the store for as long as the process runs (never reused).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

/// Why a connection must be closed. Nothing is sent to the client about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// A request announced a payload of more than 4096 bytes: the stream cannot be followed any further.
    Oversized {
        /// The length in bytes that the header gave.
        len: u32,
    },
    /// The client does not read what is sent to it, and more waits for it than the quota allows.
    Unread,
    /// The connection is not, or no longer, known (its domain was released).
    Unknown,
}

/// Something that the caller has to do for a connection other than the one it is serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// There is output for this connection.
    Output(ConnId),
    /// Close this connection, and call [`Xenstored::disconnect`].
    Kill(ConnId, Kill),
}

/// The store: tree, domains, connections, watches and transactions.
pub struct Xenstored {
    quota: Quota,
}

impl Xenstored {
    /// An empty store: `/tool/xenstored`, and domain 0 with its `/local/domain/0`.
    pub fn new(quota: Quota) -> Self {
        Self { quota }
    }

    /// A new domain: creates what libxl creates for it, then fires `@introduceDomain`.
    /// False if it is already there, or is not a domid that a domain can have.
    pub fn introduce(&mut self, _domid: u16) -> bool {
        true
    }

    /// The end of a domain: its connections, watches, transactions and every node that it owns go, then `@releaseDomain` fires,
    /// then `/local/domain/<domid>` is removed. Unknown domids (and 0) are ignored.
    pub fn release(&mut self, _domid: u16) {}

    /// A new connection of `domid`; None if that domain has not been introduced. Domain 0 always is, and is privileged.
    pub fn connect(&mut self, _domid: u16) -> Option<ConnId> {
        Some(ConnId(0))
    }

    /// Forgets a connection with its watches, open transactions and unsent output. Unknown ids are ignored.
    pub fn disconnect(&mut self, _conn: ConnId) {}

    /// Takes bytes that a client sent, cut anywhere, and serves every request that is complete by now.
    pub fn receive(&mut self, _conn: ConnId, _bytes: &[u8]) -> Result<(), Kill> {
        Ok(())
    }

    /// False while the client has so much unread output that nothing more should be read from it.
    /// Becomes true again through [`Xenstored::sent`] only.
    pub fn wants_input(&self, _conn: ConnId) -> bool {
        true
    }

    /// The next bytes to send on a connection; empty if there are none. They stay until [`Xenstored::sent`].
    pub fn output(&self, _conn: ConnId) -> &[u8] {
        &[]
    }

    /// `bytes` of what [`Xenstored::output`] showed have been sent.
    pub fn sent(&mut self, _conn: ConnId, _bytes: usize) {}

    /// What has come up since the last call, each connection once for output. The caller's loop is:
    /// `receive` (or any other call), then act on every notice.
    pub fn notices(&mut self) -> Vec<Notice> {
        Vec::new()
    }
}
