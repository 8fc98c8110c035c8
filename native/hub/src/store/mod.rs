//! The store of the virtual domains: a xenstored without input and output.
//!
//! It takes bytes from clients and returns bytes for clients; the caller owns the sockets. It
//! follows C xenstored 4.17 rule for rule, so a program sees the same here as on a Xen host,
//! except:
//!
//! * There is no limit on the rate of writes while transactions are open, which needs a clock.
//! * A client that does not read is cut off ([`ConnectionError::Unread`]) where C xenstored drops
//!   its events.
//! * A domain may have several connections. Quotas are per domain; watches and transactions belong
//!   to a connection.
//! * Control commands are refused. Requests cannot introduce or release a hosted domain.
//! * Permissions never pass to a later domain with the same number.
//! * The memory quota excludes queued output, which has a limit of its own.
//!
//! A request arrives through `connection` and `codec`. `requests` and `toolstack` perform it
//! through an `access`, on behalf of a domain and perhaps in a `transaction`, on the `tree` of
//! nodes. `commit` writes changes to the tree, and `events` notifies the watches that they reach.

mod access;
#[cfg(feature = "audit")]
mod audit;
mod codec;
mod commit;
mod connection;
mod domain;
mod error;
mod events;
mod node;
mod path;
mod perms;
mod quota;
mod requests;
mod toolstack;
mod transaction;
mod tree;
mod watch;

use std::collections::BTreeMap;

use codec::Header;
use connection::Connection;
pub use connection::ConnectionError;
use domain::{Domains, FIRST_RESERVED, INTRODUCE_DOMAIN, home};
use node::Node;
use path::Path;
use perms::{Domid, Permission, Perms, Rights};
pub use quota::Quota;
use tree::Tree;
pub use watch::ConnId;
use watch::{Reach, Watches};

/// What the caller must do for a connection, which may be another than the one that it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Send the output of this connection.
    Output(ConnId),
    /// Close this connection, and call [`Xenstored::disconnect`].
    Close(ConnId, ConnectionError),
}

/// The store: tree, domains, connections, watches and transactions.
///
/// After each call that may change something, act on every notice from [`Xenstored::notices`].
pub struct Xenstored {
    quota: Quota,
    tree: Tree,
    domains: Domains,
    connections: BTreeMap<ConnId, Connection>,
    connected: u64,
    watches: Watches,
    notices: Vec<Notice>,
}

impl Xenstored {
    /// A store with the initial nodes of C xenstored (`/tool/xenstored`) and the name and domid of
    /// domain 0.
    pub fn new(quota: Quota) -> Self {
        let private = Perms::new(Permission::new(Rights::NONE, 0), &[]);
        let mut store = Self {
            quota,
            tree: Tree::new(Node::new(private.clone())),
            domains: Domains::new(),
            connections: BTreeMap::new(),
            connected: 0,
            watches: Watches::default(),
            notices: Vec::new(),
        };
        let root = path::Path::root();
        store.domains.charge(0, |usage| {
            usage.nodes = 1;
            usage.memory = root.bytes().len() + Node::new(private.clone()).size();
        });
        access::Access::privileged(&mut store).set_node(
            &Path::own("/tool/xenstored"),
            b"",
            &private,
        );
        store.create_nodes(0);
        store
    }

    /// Introduces a domain: creates the nodes that libxl creates (`/local/domain/<domid>` with
    /// `name`, `domid`, `device`, `control` readable for the domain, `control/shutdown` and `data`
    /// owned by it), then fires `@introduceDomain`.
    ///
    /// False, and no change, if the domain exists already or no domain can have that number.
    pub fn introduce(&mut self, domid: u16) -> bool {
        let domid = Domid::from(domid);
        if domid >= FIRST_RESERVED || !self.add_domain(domid, true) {
            return false;
        }
        self.create_nodes(domid);
        self.fire(INTRODUCE_DOMAIN, None, Reach::Exact, None);
        true
    }

    /// Releases a domain. Removes its connections with their watches and transactions, then every
    /// node that it owns with all descendants (watches fire while the permissions still exist).
    /// From then on its permissions grant nothing. Fires `@releaseDomain`, and finally removes
    /// `/local/domain/<domid>` as a toolstack does.
    ///
    /// Does nothing for unknown domids and 0.
    pub fn release(&mut self, domid: u16) {
        let domid = Domid::from(domid);
        if domid == 0 || !self.domains.contains(domid) {
            return;
        }
        self.remove_domain(domid);
        let path = Path::own(&home(domid));
        if self.tree.get(path.bytes()).is_some() {
            access::Access::privileged(self).remove_node(&path);
        }
    }

    /// Adds a connection of `domid`; None if that domain has not been introduced. Domain 0 always
    /// exists, and is privileged.
    pub fn connect(&mut self, domid: u16) -> Option<ConnId> {
        let domid = Domid::from(domid);
        if !self.domains.contains(domid) {
            return None;
        }
        self.connected += 1;
        let id = ConnId(self.connected);
        self.connections.insert(id, Connection::new(domid));
        Some(id)
    }

    /// Removes a connection with its watches, open transactions and unsent output. Does nothing for
    /// unknown ids.
    pub fn disconnect(&mut self, conn: ConnId) {
        self.reset(conn);
        self.connections.remove(&conn);
    }

    /// Takes bytes from a client's stream, split anywhere, and serves every complete request.
    ///
    /// Pass at most a few KiB at a time and check [`Xenstored::wants_input`] in between, or a
    /// client can fill its output in one call.
    ///
    /// # Errors
    /// Why the connection must be closed. Then call [`Xenstored::disconnect`].
    pub fn receive(&mut self, conn: ConnId, bytes: &[u8]) -> Result<(), ConnectionError> {
        let mut rest = bytes;
        loop {
            let known = self
                .connections
                .get_mut(&conn)
                .ok_or(ConnectionError::Unknown)?;
            if known.closed {
                return Err(ConnectionError::Unread);
            }
            match known.input.next(&mut rest) {
                Ok(Some((header, payload))) => self.serve(conn, header, &payload),
                Ok(None) => return Ok(()),
                Err(len) => {
                    known.close();
                    return Err(ConnectionError::Oversized { len });
                }
            }
        }
    }

    /// Whether to read from the client: false while it has too many unread replies or too much
    /// unread output. Only [`Xenstored::sent`] makes it true again.
    pub fn wants_input(&self, conn: ConnId) -> bool {
        self.connections.get(&conn).is_some_and(|known| {
            let replies = if known.domid == 0 {
                usize::MAX
            } else {
                self.quota.outstanding
            };
            !known.closed && known.replies() < replies && known.queued() < self.quota.output / 2
        })
    }

    /// The next bytes to send on a connection, at most one message; empty if there are none.
    /// [`Xenstored::sent`] removes them.
    pub fn output(&self, conn: ConnId) -> &[u8] {
        self.connections.get(&conn).map_or(&[], Connection::output)
    }

    /// Removes `bytes` of [`Xenstored::output`] that have been sent.
    pub fn sent(&mut self, conn: ConnId, bytes: usize) {
        if let Some(known) = self.connections.get_mut(&conn) {
            known.sent(bytes);
        }
    }

    /// The notices since the last call. Output is announced once, and again only after all of it
    /// has been sent.
    pub fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn reply(&mut self, conn: ConnId, request: Header, kind: u32, payload: &[u8]) {
        if let Some(known) = self.connections.get_mut(&conn) {
            known.queue_reply(kind, request.req_id, request.tx_id, payload);
            self.announce_output(conn);
        }
    }

    fn announce_output(&mut self, conn: ConnId) {
        let Some(known) = self
            .connections
            .get_mut(&conn)
            .filter(|known| !known.closed)
        else {
            return;
        };
        if known.queued() > self.quota.output {
            known.close();
            self.notices
                .push(Notice::Close(conn, ConnectionError::Unread));
        } else if !known.announced && known.queued() > 0 {
            known.announced = true;
            self.notices.push(Notice::Output(conn));
        }
    }
}
