//! A transaction: what it has seen of the store, and what it would change.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::Node;
use super::path::Path;
use super::perms::Domid;
use super::watch::Reach;

/// One name that a transaction has looked at or changed.
pub struct Accessed {
    /// The name.
    pub path: Path,
    /// The node as it was in the tree at the first access; None if there was none. The commit needs
    /// it to be so still.
    pub before: Option<Arc<Node>>,
    /// The node as this transaction sees it.
    pub now: Option<Arc<Node>>,
    /// Whether `now` is to be put into the tree.
    pub modified: bool,
    /// The watches to fire at the commit.
    pub fire: Option<Reach>,
}

/// An open transaction. Reading shares the node with the tree, so a snapshot costs one entry per
/// name accessed.
#[derive(Default)]
pub struct Transaction {
    /// In order of first access, which is the order in which a commit applies the changes.
    accessed: Vec<Accessed>,
    index: HashMap<Path, usize>,
    /// Something went wrong half-way: it can only be ended.
    pub failed: bool,
    /// It has created a node, so the commit checks the quota.
    pub created: bool,
    /// Bytes charged to the domain that opened it.
    pub charged: usize,
}

impl Transaction {
    /// How many names have been accessed.
    pub fn count(&self) -> usize {
        self.accessed.len()
    }

    /// What is known about a name; None if it has not been accessed.
    pub fn get(&mut self, path: &Path) -> Option<&mut Accessed> {
        let at = *self.index.get(path)?;
        self.accessed.get_mut(at)
    }

    /// Remembers the first access to a name, and what was found there.
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

    /// Queues a watch event. One that also reaches watches above replaces an exact one, not the
    /// other way round.
    pub fn queue(&mut self, path: &Path, reach: Reach) {
        match self.get(path) {
            Some(accessed) if accessed.fire != Some(Reach::Above) => accessed.fire = Some(reach),
            Some(_) => {}
            None => self.failed = true,
        }
    }

    /// Takes a node that is gone off its parent's list.
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

    /// All names accessed, in order.
    pub fn accessed(&self) -> &[Accessed] {
        &self.accessed
    }

    /// By how much a commit would change the number of nodes that each domain owns.
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
    fn only_changes_count_for_the_owners() {
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
    fn the_wider_event_wins() {
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
