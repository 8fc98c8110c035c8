//! Commits changes to the tree: single nodes, or a whole transaction.

use std::sync::Arc;

use super::Xenstored;
use super::access::{Access, cost};
use super::error::Error;
use super::node::Node;
use super::path::Path;
use super::transaction::Transaction;

impl Access<'_> {
    /// Commits a transaction. ENOMEM if it had failed before, ENOSPC for too many nodes, EAGAIN if
    /// a node that it accessed has changed since.
    pub fn commit(&mut self, tx: &Transaction) -> Result<(), Error> {
        if tx.failed {
            return Err(Error::Memory);
        }
        let limited = tx.created && !self.subject.is_privileged();
        for (domid, change) in tx.owners() {
            if !self.store.domains.contains(domid) {
                return Err(Error::Memory);
            }
            let nodes = self
                .store
                .domains
                .usage(domid)
                .nodes
                .saturating_add_signed(change);
            if limited && domid != 0 && nodes >= self.store.quota.nodes {
                return Err(Error::NoSpace);
            }
        }
        let generation = |node: &Arc<Node>| node.generation;
        for accessed in tx.accessed() {
            let current = self.store.tree.get(accessed.path.bytes()).map(generation);
            if current != accessed.before.as_ref().map(generation) {
                return Err(Error::Again);
            }
        }
        for accessed in tx.accessed().iter().filter(|accessed| accessed.modified) {
            let node = accessed.now.as_ref().map(|node| {
                let mut node = self.edit(node);
                node.generation = self.store.tree.next_generation();
                Arc::new(node)
            });
            self.store.commit_node(&accessed.path, node);
            if let Some(reach) = accessed.fire {
                self.store.fire(
                    accessed.path.bytes(),
                    None,
                    reach,
                    accessed.before.as_deref(),
                );
            }
        }
        Ok(())
    }
}

impl Xenstored {
    /// Writes a version of a node to the tree, or removes the node, and updates what its owner is
    /// charged.
    pub(super) fn commit_node(&mut self, path: &Path, node: Option<Arc<Node>>) {
        let new = node
            .as_ref()
            .map(|node| (node.perms.owner(), cost(path, node)));
        let old = match node {
            Some(node) => self.tree.insert(path.clone(), node),
            None => self.tree.remove(path),
        };
        if let Some(old) = old {
            let bytes = cost(path, &old);
            self.domains.charge(old.perms.owner(), |usage| {
                usage.nodes = usage.nodes.saturating_sub(1);
                usage.memory = usage.memory.saturating_sub(bytes);
            });
        }
        if let Some((owner, bytes)) = new {
            self.domains.charge(owner, |usage| {
                usage.nodes += 1;
                usage.memory += bytes;
            });
        }
    }
}
