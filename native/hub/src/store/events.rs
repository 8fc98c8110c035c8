//! Who is told of a change.

use std::sync::Arc;

use super::Xenstored;
use super::codec::PAYLOAD_MAX;
use super::connection::ConnId;
use super::node::Node;
use super::path;
use super::perms::{Domid, Rights};
use super::watch::Reach;

impl Xenstored {
    /// Sends events for a change of `path` to the watches that it reaches, of those connections
    /// that may read the node as it was (`old`, if its permissions changed) or is (`node`, else
    /// looked up), or its parent.
    pub(super) fn fire(
        &mut self,
        path: &[u8],
        node: Option<&Node>,
        reach: Reach,
        old: Option<&Node>,
    ) {
        let mut asked = None;
        for hit in self.watches.hits(path, reach) {
            let Some(conn) = self.connections.get(&hit.conn) else {
                continue;
            };
            let domid = conn.domid;
            let permitted = match asked {
                Some((conn, permitted)) if conn == hit.conn => permitted,
                _ => self.may_know(domid, path, node, old),
            };
            asked = Some((hit.conn, permitted));
            if permitted {
                self.send_event(hit.conn, &hit.event(path));
            }
        }
    }

    fn may_know(
        &mut self,
        domid: Domid,
        path: &[u8],
        node: Option<&Node>,
        old: Option<&Node>,
    ) -> bool {
        let subject = self.domains.subject(domid);
        if path.starts_with(b"@") {
            return self
                .domains
                .special_rights(path, subject)
                .is_some_and(|rights| rights.include(Rights::READ));
        }
        let readable = |node: &Node| {
            let valid = |domid| self.domains.valid(domid, node.generation);
            node.perms.rights(subject, valid).include(Rights::READ)
        };
        if old.is_some_and(readable) {
            return true;
        }
        let Some(node) = node.or_else(|| self.tree.get(path).map(Arc::as_ref)) else {
            return false;
        };
        readable(node)
            || self
                .tree
                .get(path::parent(path))
                .is_some_and(|parent| readable(parent))
    }

    /// Queues an event; one that would be too long for the protocol is not sent.
    pub(super) fn send_event(&mut self, conn: ConnId, payload: &[u8]) {
        if payload.len() > PAYLOAD_MAX {
            return;
        }
        if let Some(known) = self.connections.get_mut(&conn) {
            known.event(payload);
            self.announce(conn);
        }
    }
}
