//! One node: value, children, permissions and generation.

use super::codec::PAYLOAD_MAX;
use super::perms::Perms;

/// Bytes of a node's record header in C xenstored.
const OVERHEAD: usize = 24;

/// Bytes of one permission in that record.
const PERM: usize = 8;

/// A version of a node. The tree and transactions share versions and replace them; a shared version
/// never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Grows with every change in the store, so it is unique among the versions of a node.
    pub generation: u64,
    /// The permission list.
    pub perms: Perms,
    /// The value: any bytes.
    pub data: Vec<u8>,
    /// The children.
    pub children: Children,
}

impl Node {
    /// A node without value and children.
    pub fn new(perms: Perms) -> Node {
        Node {
            generation: 0,
            perms,
            data: Vec::new(),
            children: Children::default(),
        }
    }

    /// The size in bytes of C xenstored's record of the node, to which its quotas apply.
    pub fn size(&self) -> usize {
        OVERHEAD + PERM * self.perms.count() + self.data.len() + self.children.bytes().len()
    }
}

/// The names of a node's children, in the order of their creation.
///
/// Stored in the format of the protocol, each followed by a NUL: a reply to DIRECTORY is a copy.
/// Changes take time linear in the length, which the quota on node size limits for all but domain
/// 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Children(Vec<u8>);

impl Children {
    /// All names, in the format of a DIRECTORY reply.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The names, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        let names = self.0.strip_suffix(b"\0");
        names
            .into_iter()
            .flat_map(|names| names.split(|&byte| byte == 0))
    }

    /// Adds a name that is not in the list yet.
    pub fn push(&mut self, name: &[u8]) {
        self.0.extend_from_slice(name);
        self.0.push(0);
    }

    /// Removes a name; false if it is not in the list.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let mut start = 0;
        for child in self.0.split_inclusive(|&byte| byte == 0) {
            let end = start + child.len();
            if child.strip_suffix(b"\0") == Some(name) {
                self.0.drain(start..end);
                return true;
            }
            start = end;
        }
        false
    }

    /// The reply to DIRECTORY_PART: the generation, then as many whole names from `offset` (in
    /// bytes) as fit. An empty name follows the last one.
    pub fn part(&self, generation: u64, offset: usize) -> Vec<u8> {
        let mut reply = format!("{generation}\0").into_bytes();
        let room = PAYLOAD_MAX - 1 - reply.len();
        let rest = self.0.get(offset..).unwrap_or_default();
        let whole: usize = if rest.len() <= room {
            rest.len()
        } else {
            rest[..room]
                .iter()
                .rposition(|&byte| byte == 0)
                .map_or(0, |nul| nul + 1)
        };
        reply.extend_from_slice(&rest[..whole]);
        if whole == rest.len() {
            reply.push(0);
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::perms::{Permission, Rights};

    fn children(names: &[&str]) -> Children {
        let mut children = Children::default();
        names.iter().for_each(|name| children.push(name.as_bytes()));
        children
    }

    #[test]
    fn children_keep_their_creation_order() {
        let mut list = children(&["b", "a", "ab"]);
        assert_eq!(list.bytes(), b"b\0a\0ab\0");
        assert!(list.remove(b"a"));
        assert!(!list.remove(b"a"));
        assert_eq!(list.iter().collect::<Vec<_>>(), [b"b".as_slice(), b"ab"]);
        assert!(list.remove(b"b") && list.remove(b"ab"));
        assert_eq!(list.iter().count(), 0);
    }

    #[test]
    fn the_size_is_that_of_c_xenstoreds_record() {
        let mut node = Node::new(Perms::new(
            Permission::new(Rights::NONE, 1),
            &[Permission::new(Rights::READ, 2)],
        ));
        node.data = vec![0; 10];
        node.children.push(b"abc");
        assert_eq!(node.size(), 24 + 16 + 10 + 4);
    }

    #[test]
    fn long_lists_come_in_parts() {
        let names: Vec<String> = (0..1500).map(|n| format!("n{n}")).collect();
        let list = children(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut all = Vec::new();
        loop {
            let reply = list.part(77, all.len());
            assert!(reply.len() <= PAYLOAD_MAX);
            let names = reply.strip_prefix(b"77\0").unwrap();
            if let Some(last) = names.strip_suffix(b"\0\0") {
                all.extend_from_slice(last);
                all.push(0);
                break;
            }
            assert!(names.len() > 3000 && names.ends_with(b"\0"));
            all.extend_from_slice(names);
        }
        assert_eq!(all, list.bytes());
        assert_eq!(list.part(77, all.len()), b"77\0\0");
        assert_eq!(list.part(77, usize::MAX), b"77\0\0");
        assert_eq!(Children::default().part(1, 0), b"1\0\0");
    }
}
