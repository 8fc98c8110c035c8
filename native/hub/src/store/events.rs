//! Sends watch events.

use std::sync::Arc;

use super::Xenstored;
use super::codec::PAYLOAD_MAX;
use super::connection::Connection;
use super::node::Node;
use super::path;
use super::perms::Rights;
use super::watch::{ConnId, Reach};

impl Xenstored {
    /// Sends events for a change of `path` to the watches that it reaches. A connection gets an
    /// event only if it may read the node as it was (`old`, if its permissions changed) or as it is
    /// (`node`, else the one in the tree), or its parent.
    pub(super) fn fire(
        &mut self,
        path: &[u8],
        node: Option<&Node>,
        reach: Reach,
        old: Option<&Node>,
    ) {
        let special = path.starts_with(b"@");
        let node = node.or_else(|| self.tree.get(path).map(Arc::as_ref));
        let parent = node.and_then(|_| self.tree.get(path::parent(path)));
        let versions = [old, node, parent.map(Arc::as_ref)];
        let may_know = |conn| {
            let Some(Connection { domid, .. }) = self.connections.get(&conn) else {
                return false;
            };
            let subject = self.domains.subject(*domid);
            if special {
                let rights = self.domains.special_rights(path, subject);
                return rights.is_some_and(|rights| rights.contains(Rights::READ));
            }
            versions.into_iter().flatten().any(|node| {
                let valid = |domid| self.domains.valid(domid, node.generation);
                node.perms.rights(subject, valid).contains(Rights::READ)
            })
        };
        for hit in self.watches.hits(path, reach, may_know) {
            self.send_event(hit.conn, &hit.event(path));
        }
    }

    /// Queues an event, unless it is too long for the protocol.
    pub(super) fn send_event(&mut self, conn: ConnId, payload: &[u8]) {
        if payload.len() > PAYLOAD_MAX {
            return;
        }
        if let Some(known) = self.connections.get_mut(&conn) {
            known.queue_event(payload);
            self.announce_output(conn);
        }
    }
}
