//! Access to nodes on behalf of a domain, inside or outside a transaction.
//!
//! Outside a transaction, every operation checks everything that can fail before it changes
//! anything. Inside one, an operation that fails half-way fails the transaction, as in C xenstored.

use std::sync::Arc;

use super::Xenstored;
use super::error::Error;
use super::node::Node;
use super::path::Path;
use super::perms::{Domid, Perms, Rights, Subject};
use super::transaction::Transaction;
use super::watch::Reach;

/// The store as one subject sees it, perhaps in a transaction.
pub struct Access<'a> {
    /// The store.
    pub store: &'a mut Xenstored,
    /// On whose behalf.
    pub subject: Subject,
    /// The transaction, taken out of its connection while a request in it is served.
    pub tx: Option<Transaction>,
}

impl<'a> Access<'a> {
    /// Access for the store itself, with all rights.
    pub fn privileged(store: &'a mut Xenstored) -> Access<'a> {
        Access {
            store,
            subject: Subject::PRIVILEGED,
            tx: None,
        }
    }

    /// The node, whatever its permissions. A transaction records the access, also to a node that
    /// does not exist. ENOSPC or ENOMEM, which fail the transaction, if it has accessed too much.
    pub fn read(&mut self, path: &Path) -> Result<Option<Arc<Node>>, Error> {
        let committed = self.store.tree.get(path.bytes());
        let Some(tx) = &mut self.tx else {
            return Ok(committed.cloned());
        };
        if let Some(accessed) = tx.get(path) {
            return Ok(accessed.now.clone());
        }
        let found = committed.cloned();
        let usage = self.store.domains.usage(self.subject.domid);
        let size = path.bytes().len() + found.as_ref().map_or(0, |node| node.size());
        if !self.subject.is_privileged() {
            let full = tx.count() >= self.store.quota.transaction_nodes;
            if full || usage.memory + size >= self.store.quota.memory {
                tx.failed = true;
                return Err(if full { Error::NoSpace } else { Error::Memory });
            }
        }
        tx.record(path.clone(), found.clone());
        tx.charged += size;
        self.store
            .domains
            .charge(self.subject.domid, |usage| usage.memory += size);
        Ok(found)
    }

    /// The subject's rights on a node.
    pub fn rights(&self, node: &Node) -> Rights {
        let domains = &self.store.domains;
        node.perms
            .rights(self.subject, |domid| domains.valid(domid, node.generation))
    }

    /// The node, if the subject has the rights `needed`.
    ///
    /// EACCES in any case if the subject has none of them on the nearest existing ancestor, so that
    /// probing does not reveal which nodes exist.
    pub fn node(&mut self, path: &Path, needed: Rights) -> Result<Arc<Node>, Error> {
        let error = match self.read(path)? {
            Some(node) if self.rights(&node).contains(needed) => return Ok(node),
            Some(_) => Error::Access,
            None => Error::NotFound,
        };
        let (_, above) = self.nearest_above(path)?;
        Err(if self.rights(&above).intersects(needed) {
            error
        } else {
            Error::Access
        })
    }

    /// The nearest existing ancestor of `path`. A transaction records an access to every name
    /// between.
    fn nearest_above(&mut self, path: &Path) -> Result<(Path, Arc<Node>), Error> {
        if self.tx.is_none() {
            let found = self.store.tree.nearest_above(path).ok_or(Error::Io)?;
            return Ok((found.0.clone(), found.1.clone()));
        }
        let mut path = path.parent();
        loop {
            match self.read(&path)? {
                Some(node) => return Ok((path, node)),
                // The root cannot be removed.
                None if path.is_root() => return Err(Error::Io),
                None => path = path.parent(),
            }
        }
    }

    /// A copy of a node, to be changed. Marks permissions of domains that have ended as ignored:
    /// the copy's new generation would revive them.
    pub fn edit(&self, node: &Node) -> Node {
        let mut copy = node.clone();
        let domains = &self.store.domains;
        copy.perms
            .ignore_invalid(false, |domid| domains.valid(domid, node.generation));
        copy
    }

    /// Creates a node and its missing ancestors, with the permissions of the nearest existing one.
    /// An unprivileged creator becomes the owner. `path` must not exist.
    pub fn create(&mut self, path: &Path, data: &[u8]) -> Result<(), Error> {
        let (ancestor, found) = self.nearest_above(path)?;
        let mut missing = vec![path.clone()];
        loop {
            let above = missing[missing.len() - 1].parent();
            if above == ancestor {
                break;
            }
            missing.push(above);
        }
        if let Some(tx) = &mut self.tx {
            tx.created = true;
        }
        let quota = self.store.quota;
        if !self.subject.is_privileged() {
            // A commit checks the nodes of its transaction.
            let owned = self.store.domains.usage(self.subject.domid).nodes;
            let new = if self.tx.is_some() { 1 } else { missing.len() };
            if owned + new > quota.nodes {
                return Err(Error::NoSpace);
            }
        }

        let mut parent = self.edit(&found);
        let mut perms = parent.perms.clone();
        if !self.subject.is_privileged() {
            perms.set_owner(self.subject.domid);
        }
        parent.children.push(missing[missing.len() - 1].base());
        let mut nodes: Vec<(Path, Node)> = Vec::with_capacity(missing.len() + 1);
        for (at, path) in missing.iter().enumerate() {
            let mut node = Node::new(perms.clone());
            match at.checked_sub(1) {
                Some(below) => node.children.push(missing[below].base()),
                None => node.data = data.to_vec(),
            }
            nodes.push((path.clone(), node));
        }
        nodes.push((ancestor, parent));
        self.write(nodes, true)
    }

    /// Writes new versions of nodes: all or, outside a transaction, none. `sized` applies the quota
    /// on node size.
    pub fn write(&mut self, nodes: Vec<(Path, Node)>, sized: bool) -> Result<(), Error> {
        if let Err(error) = self.check_quota(&nodes, sized) {
            if let Some(tx) = &mut self.tx {
                tx.failed = true;
            }
            return Err(error);
        }
        for (path, mut node) in nodes {
            node.generation = self.store.tree.next_generation();
            self.put(&path, Some(node));
        }
        Ok(())
    }

    fn check_quota(&mut self, nodes: &[(Path, Node)], sized: bool) -> Result<(), Error> {
        let quota = self.store.quota;
        if sized
            && !self.subject.is_privileged()
            && nodes.iter().any(|(_, node)| node.size() >= quota.node_size)
        {
            return Err(Error::NoSpace);
        }
        // How much the memory charged to each domain grows. The nodes of a transaction are charged
        // to the domain that opened it.
        let mut growth: Vec<(Domid, isize)> = Vec::new();
        for (path, node) in nodes {
            let before = match &mut self.tx {
                Some(tx) => tx.get(path).and_then(|accessed| accessed.now.clone()),
                None => self.store.tree.get(path.bytes()).cloned(),
            };
            let payer = |node: &Node| {
                if self.tx.is_some() {
                    self.subject.domid
                } else {
                    node.perms.owner()
                }
            };
            if let Some(before) = &before {
                growth.push((payer(before), -(cost(path, before) as isize)));
            }
            growth.push((payer(node), cost(path, node) as isize));
        }
        growth.sort_unstable();
        for of_one in growth.chunk_by(|a, b| a.0 == b.0) {
            let (domid, sum) = (
                of_one[0].0,
                of_one.iter().map(|(_, bytes)| bytes).sum::<isize>(),
            );
            let used = self.store.domains.usage(domid).memory;
            if domid != 0 && sum > 0 && used.saturating_add_signed(sum) >= quota.memory {
                return Err(Error::Memory);
            }
        }
        Ok(())
    }

    /// Writes a version of a node, or removes the node.
    fn put(&mut self, path: &Path, node: Option<Node>) {
        let node = node.map(Arc::new);
        let Some(tx) = &mut self.tx else {
            return self.store.commit_node(path, node);
        };
        let Some(accessed) = tx.get(path) else {
            // Cannot happen: a node is read before it is written.
            tx.failed = true;
            return;
        };
        let (new, old) = (bytes(path, &node), bytes(path, &accessed.now));
        accessed.now = node;
        accessed.modified = true;
        tx.charged = (tx.charged + new).saturating_sub(old);
        self.store.domains.charge(self.subject.domid, |usage| {
            usage.memory = (usage.memory + new).saturating_sub(old)
        });
    }

    /// Removes a node and its descendants, children first. Watches on the node or an ancestor get
    /// one event; watches on a descendant get one for it.
    ///
    /// EIO happens only in a transaction, which then cannot commit: it reached a quota half-way, or
    /// another client created or removed a child between the transaction's accesses to the parent
    /// and to the child.
    pub fn remove(&mut self, path: &Path) -> Result<(), Error> {
        self.read(&path.parent())?.ok_or(Error::Invalid)?;
        self.remove_below(path).map_err(|_| Error::Io)?;
        let parent = self.read(&path.parent())?.ok_or(Error::Io)?;
        let mut parent = self.edit(&parent);
        if !parent.children.remove(path.base()) {
            return Err(Error::Io);
        }
        self.write(vec![(path.parent(), parent)], false)
    }

    fn remove_below(&mut self, root: &Path) -> Result<(), Error> {
        // Parents before children, as C xenstored reads them; then children before parents, as it
        // removes them.
        let mut pending = vec![(root.clone(), false)];
        while let Some((path, visited)) = pending.pop() {
            let node = self.read(&path)?.ok_or(Error::Io)?;
            if !visited {
                pending.push((path.clone(), true));
                let children = node
                    .children
                    .iter()
                    .rev()
                    .map(|name| (path.child(name), false));
                pending.extend(children);
                continue;
            }
            self.put(&path, None);
            let is_root = path == *root;
            let reach = if is_root { Reach::Above } else { Reach::Exact };
            self.fire(&path, Some(&node), reach, None);
            // The parent is removed next, unless the walk fails: then the transaction continues
            // with what is left.
            if let (Some(tx), false) = (&mut self.tx, is_root) {
                tx.remove_from_parent(&path);
            }
        }
        Ok(())
    }

    /// Fires watches now, or when the transaction commits.
    pub fn fire(&mut self, path: &Path, node: Option<&Node>, reach: Reach, old: Option<&Node>) {
        match &mut self.tx {
            Some(tx) => tx.queue(path, reach),
            None => self.store.fire(path.bytes(), node, reach, old),
        }
    }

    /// Sets value and permissions of a node, for the store itself.
    pub fn set_node(&mut self, path: &Path, data: &[u8], perms: &Perms) {
        if self.store.tree.get(path.bytes()).is_none() {
            // Cannot fail: no quota applies to the store itself.
            let _ = self.create(path, data);
        }
        if let Some(node) = self.store.tree.get(path.bytes()).cloned() {
            let mut new = self.edit(&node);
            new.data = data.to_vec();
            new.perms = perms.clone();
            let _ = self.write(vec![(path.clone(), new)], false);
            self.fire(path, None, Reach::Above, Some(&node));
        }
    }

    /// Removes an existing node other than the root, for the store itself.
    pub fn remove_node(&mut self, path: &Path) {
        // Cannot fail outside a transaction.
        let _ = self.remove(path);
    }

    /// Makes domain 0 the owner of the root if `domid` is: the root cannot be removed with its
    /// owner.
    pub fn reassign_root(&mut self, domid: Domid) {
        let path = Path::root();
        if let Some(root) = self.store.tree.get(path.bytes()).cloned()
            && root.perms.owner() == domid
        {
            let mut root = self.edit(&root);
            root.perms.set_owner(0);
            let _ = self.write(vec![(path, root)], false);
        }
    }
}

/// The memory charged for a node, in bytes.
pub fn cost(path: &Path, node: &Node) -> usize {
    path.bytes().len() + node.size()
}

fn bytes(path: &Path, node: &Option<Arc<Node>>) -> usize {
    node.as_ref().map_or(0, |node| cost(path, node))
}
