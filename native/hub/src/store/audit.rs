//! Consistency checks for tests: recomputes what the store counts incrementally.

use std::collections::BTreeMap;

use super::Xenstored;
use super::domain::Usage;
use super::path::Path;
use super::perms::Domid;

impl Xenstored {
    /// Checks the tree and the usage of every domain. Visits every node.
    ///
    /// # Errors
    /// The first inconsistency found.
    pub fn audit(&self) -> Result<(), String> {
        self.audit_tree()?;
        self.audit_usage()
    }

    /// Every node is listed by its parent exactly once, and every listed child exists.
    fn audit_tree(&self) -> Result<(), String> {
        let mut listed = 1; // the root
        for (path, node) in self.tree.iter() {
            let mut names: Vec<&[u8]> = node.children.iter().collect();
            listed += names.len();
            names.sort_unstable();
            if names.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(format!("{}: a child is listed twice", show(path)));
            }
            if let Some(missing) = names
                .into_iter()
                .map(|name| path.child(name))
                .find(|path| self.tree.get(path.bytes()).is_none())
            {
                return Err(format!("{} is listed but does not exist", show(&missing)));
            }
            if !self.domains.contains(node.perms.owner()) {
                return Err(format!("{}: its owner does not exist", show(path)));
            }
            if node.generation > self.tree.generation() {
                return Err(format!("{}: generation beyond the tree's", show(path)));
            }
        }
        let existing = self.tree.iter().count();
        if listed == existing {
            Ok(())
        } else {
            Err(format!("{existing} nodes exist, {listed} are listed"))
        }
    }

    fn audit_usage(&self) -> Result<(), String> {
        let mut usage: BTreeMap<Domid, Usage> = BTreeMap::new();
        for (path, node) in self.tree.iter() {
            let of_owner = usage.entry(node.perms.owner()).or_default();
            of_owner.nodes += 1;
            of_owner.memory += path.bytes().len() + node.size();
        }
        for (id, conn) in &self.connections {
            let of_domain = usage.entry(conn.domid).or_default();
            for tx in conn.transactions.values() {
                of_domain.transactions += 1;
                of_domain.memory += tx.charged;
            }
            for (path, token) in self.watches.of(*id) {
                of_domain.watches += 1;
                of_domain.memory += path.bytes().len() + token.len();
            }
        }
        for (domid, charged) in self.domains.usages() {
            let counted = usage.remove(&domid).unwrap_or_default();
            if charged != counted {
                return Err(format!(
                    "domain {domid}: charged {charged:?}, counted {counted:?}"
                ));
            }
        }
        match usage.into_iter().next() {
            None => Ok(()),
            Some((domid, counted)) => {
                Err(format!("domain {domid} is unknown, counted {counted:?}"))
            }
        }
    }
}

fn show(path: &Path) -> String {
    String::from_utf8_lossy(path.bytes()).into_owned()
}
