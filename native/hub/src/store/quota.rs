//! The limits that unprivileged domains live under.

/// Limits per unprivileged domain; the defaults are those of C xenstored 4.17. Domain 0 is bound by
/// `output` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Nodes owned.
    pub nodes: usize,
    /// Bytes of one node: header, permissions, value and the names of its children; must stay below
    /// this.
    pub node_size: usize,
    /// Entries in one permission list.
    pub perms: usize,
    /// Watches; one more than this many can be set (C xenstored compares with `>`).
    pub watches: usize,
    /// Open transactions; one more than this many can be open, for the same reason.
    pub transactions: usize,
    /// Nodes touched in one transaction.
    pub transaction_nodes: usize,
    /// Bytes of an absolute path, not counting a leading `/local/domain/<domid>/`.
    pub path: usize,
    /// Replies not yet read by the client, above which no further request is taken from it.
    pub outstanding: usize,
    /// Bytes of nodes, transactions and watches held for a domain; must stay below this.
    pub memory: usize,
    /// Bytes of unread output of one connection, of any domain, above which it is closed.
    pub output: usize,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            nodes: 1000,
            node_size: 2048,
            perms: 5,
            watches: 128,
            transactions: 10,
            transaction_nodes: 1024,
            path: 2048,
            outstanding: 20,
            memory: 2 * 1024 * 1024 + 512 * 1024,
            output: 2 * 1024 * 1024 + 512 * 1024,
        }
    }
}
