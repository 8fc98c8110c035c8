//! The committed nodes, by path.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::Node;
use super::path::Path;

/// All nodes in one map, as in C xenstored: an access is one lookup at any depth. Each node lists
/// its children, so the tree can be walked. The root always exists. Transactions share nodes with
/// the tree.
pub struct Tree {
    nodes: HashMap<Path, Arc<Node>>,
    generation: u64,
}

impl Tree {
    /// A tree with only the root.
    pub fn new(root: Node) -> Tree {
        Tree {
            nodes: HashMap::from([(Path::root(), Arc::new(root))]),
            generation: 0,
        }
    }

    /// The node at this path.
    pub fn get(&self, path: &[u8]) -> Option<&Arc<Node>> {
        self.nodes.get(path)
    }

    /// The nearest existing ancestor of `path`. All ancestors of a node exist, so a binary search
    /// suffices: paths can be long, and clients can cause many searches.
    pub fn nearest_above(&self, path: &Path) -> Option<(&Path, &Arc<Node>)> {
        let name = path.bytes();
        let ends: Vec<usize> = (1..name.len()).filter(|&at| name[at] == b'/').collect();
        let existing = ends.partition_point(|&end| self.nodes.contains_key(&name[..end]));
        let nearest = match existing.checked_sub(1) {
            Some(deepest) => &name[..ends[deepest]],
            None => b"/",
        };
        self.nodes.get_key_value(nearest)
    }

    /// Writes a version of a node and returns the replaced one.
    pub fn insert(&mut self, path: Path, node: Arc<Node>) -> Option<Arc<Node>> {
        self.nodes.insert(path, node)
    }

    /// Removes a node. The caller updates its parent's list of children.
    pub fn remove(&mut self, path: &Path) -> Option<Arc<Node>> {
        self.nodes.remove(path)
    }

    /// The generation of the latest change.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Allocates the generation of the next change.
    pub fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// The paths of the nodes at and below `root` that `wanted` accepts, parents first, children in
    /// their order. Skips the descendants of accepted nodes.
    pub fn select(&self, root: &Path, wanted: impl Fn(&Node) -> bool) -> Vec<Path> {
        let mut selected = Vec::new();
        let mut pending = vec![root.clone()];
        while let Some(path) = pending.pop() {
            match self.nodes.get(&path) {
                Some(node) if wanted(node) => selected.push(path),
                Some(node) => {
                    pending.extend(node.children.iter().rev().map(|name| path.child(name)))
                }
                None => {}
            }
        }
        selected
    }

    /// Every node, in no particular order.
    #[cfg(feature = "audit")]
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Arc<Node>)> {
        self.nodes.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::perms::{Permission, Perms, Rights};

    #[test]
    fn the_nearest_existing_ancestor_is_found() {
        let node = || Node::new(Perms::new(Permission::new(Rights::NONE, 0), &[]));
        let mut tree = Tree::new(node());
        for name in ["/a", "/a/b", "/a/b/c", "/a/bc"] {
            tree.insert(Path::own(name), Arc::new(node()));
        }
        for (path, expected) in [
            ("/", "/"),
            ("/x", "/"),
            ("/x/y/z", "/"),
            ("/a", "/"),
            ("/a/x", "/a"),
            ("/a/b/c", "/a/b"),
            ("/a/b/c/d/e/f", "/a/b/c"),
            ("/a/bc/d", "/a/bc"),
            ("/a/bcd/e", "/a"),
        ] {
            let (nearest, _) = tree.nearest_above(&Path::own(path)).unwrap();
            assert_eq!(nearest, &Path::own(expected), "{path}");
        }
    }

    #[test]
    fn selection_is_in_order_and_skips_descendants_of_selected_nodes() {
        let node = |owner, children: &[&str]| {
            let mut node = Node::new(Perms::new(Permission::new(Rights::NONE, owner), &[]));
            children
                .iter()
                .for_each(|name| node.children.push(name.as_bytes()));
            node
        };
        let mut tree = Tree::new(node(0, &["b", "a"]));
        for (name, owner, children) in [
            ("/b", 0, ["x", "y"].as_slice()),
            ("/b/x", 1, &["z"]),
            ("/b/x/z", 1, &[]),
            ("/b/y", 0, &[]),
            ("/a", 1, &[]),
        ] {
            tree.insert(Path::own(name), Arc::new(node(owner, children)));
        }
        let selected = tree.select(&Path::root(), |node| node.perms.owner() == 1);
        assert_eq!(selected, [Path::own("/b/x"), Path::own("/a")]);
    }
}
