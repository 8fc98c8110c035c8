//! A transaction: the nodes that it has accessed, and its changes.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::Node;
use super::path::Path;
use super::perms::Domid;
use super::watch::Reach;

/// A node that a transaction has read or changed.
pub struct Accessed {
    /// Its path.
    pub path: Path,
    /// The node in the tree at the first access; None if it did not exist. The commit fails if the
    /// tree has another version by then.
    pub before: Option<Arc<Node>>,
    /// The node as this transaction sees it.
    pub now: Option<Arc<Node>>,
    /// Whether the commit writes `now` to the tree.
    pub modified: bool,
    /// The watches that the commit fires.
    pub fire: Option<Reach>,
}

/// An open transaction. It shares the nodes that it reads with the tree, so it costs one
/// [`Accessed`] per node.
#[derive(Default)]
pub struct Transaction {
    /// In order of first access, which is the order in which a commit applies the changes.
    accessed: Vec<Accessed>,
    index: HashMap<Path, usize>,
    /// An operation failed half-way, so it cannot commit.
    pub failed: bool,
    /// It has created a node, so the commit checks the quota of nodes.
    pub created: bool,
    /// Bytes charged to the domain that opened it.
    pub charged: usize,
}

impl Transaction {
    /// Number of nodes accessed.
    pub fn count(&self) -> usize {
        self.accessed.len()
    }

    /// The record of a node; None if it has not been accessed.
    pub fn get(&mut self, path: &Path) -> Option<&mut Accessed> {
        let at = *self.index.get(path)?;
        self.accessed.get_mut(at)
    }

    /// Records the first access to a node, and the version found.
    pub fn record(&mut self, path: Path, found: Option<Arc<Node>>) {
        self.index.insert(path.clone(), self.accessed.len());
        self.accessed.push(Accessed {
            path,
            before: found.clone(),
            now: found,
            modified: false,
            fire: None,
        });
    }

    /// Queues a watch event. `Above` replaces `Exact`, but not the other way round.
    pub fn queue(&mut self, path: &Path, reach: Reach) {
        match self.get(path) {
            Some(accessed) if accessed.fire != Some(Reach::Above) => accessed.fire = Some(reach),
            Some(_) => {}
            None => self.failed = true,
        }
    }

    /// Removes the name of a removed node from its parent.
    pub fn remove_from_parent(&mut self, path: &Path) {
        if let Some(Accessed {
            now: Some(parent),
            modified,
            ..
        }) = self.get(&path.parent())
        {
            Arc::make_mut(parent).children.remove(path.base());
            *modified = true;
        }
    }

    /// All nodes accessed, in order.
    pub fn accessed(&self) -> &[Accessed] {
        &self.accessed
    }

    /// How much a commit changes the number of nodes that each domain owns.
    pub fn owners(&self) -> HashMap<Domid, isize> {
        let mut owners = HashMap::new();
        for accessed in self.accessed.iter().filter(|accessed| accessed.modified) {
            for (node, change) in [(&accessed.before, -1), (&accessed.now, 1)] {
                if let Some(node) = node {
                    *owners.entry(node.perms.owner()).or_default() += change;
                }
            }
        }
        owners
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::perms::{Permission, Perms, Rights};

    fn node(owner: Domid) -> Option<Arc<Node>> {
        Some(Arc::new(Node::new(Perms::new(
            Permission::new(Rights::NONE, owner),
            &[],
        ))))
    }

    #[test]
    fn only_modified_nodes_change_the_owners_counts() {
        let mut tx = Transaction::default();
        for (name, before, now) in [
            ("/a", node(1), node(2)),
            ("/b", None, node(1)),
            ("/c", node(3), None),
            ("/d", node(4), node(4)),
        ] {
            let path = Path::own(name);
            tx.record(path.clone(), before);
            let accessed = tx.get(&path).unwrap();
            accessed.now = now;
            accessed.modified = name != "/d";
        }
        let mut owners: Vec<_> = tx.owners().into_iter().collect();
        owners.sort_unstable();
        assert_eq!(owners, [(1, 0), (2, 1), (3, -1)]);
    }

    #[test]
    fn the_event_with_the_wider_reach_wins() {
        let mut tx = Transaction::default();
        let path = Path::own("/a");
        tx.record(path.clone(), None);
        for (reach, expected) in [
            (Reach::Exact, Reach::Exact),
            (Reach::Above, Reach::Above),
            (Reach::Exact, Reach::Above),
        ] {
            tx.queue(&path, reach);
            assert_eq!(tx.get(&path).unwrap().fire, Some(expected));
        }
        assert!(!tx.failed);
        tx.queue(&Path::own("/never/accessed"), Reach::Above);
        assert!(tx.failed);
    }
}
