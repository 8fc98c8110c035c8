//! Quotas of unprivileged domains.

/// Limits per unprivileged domain. The defaults are those of C xenstored 4.17. For domain 0 only
/// `output` applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Nodes owned.
    pub nodes: usize,
    /// Bytes of one node (header, permissions, value and the names of its children), exclusive.
    pub node_size: usize,
    /// Permissions in one list.
    pub perms: usize,
    /// Watches. A domain can set one more than this: C xenstored compares with `>`.
    pub watches: usize,
    /// Open transactions. A domain can open one more than this, for the same reason.
    pub transactions: usize,
    /// Nodes accessed in one transaction.
    pub transaction_nodes: usize,
    /// Bytes of an absolute path without a leading `/local/domain/<domid>/`.
    pub path: usize,
    /// Unread replies at which the store takes no further request from a connection.
    pub outstanding: usize,
    /// Bytes of a domain's nodes, transactions and watches, exclusive.
    pub memory: usize,
    /// Bytes of unread output above which a connection, of any domain, is closed.
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
