//! The books against the goods: what is counted as things change must be what is there.

use std::collections::BTreeMap;

use super::Xenstored;
use super::domain::Usage;
use super::path::Path;
use super::perms::Domid;

impl Xenstored {
    /// Recomputes everything that is kept twice and says what does not agree. For tests; it looks
    /// at every node.
    pub fn audit(&self) -> Result<(), String> {
        self.audit_tree()?;
        self.audit_usage()
    }

    /// Every node is listed by its parent, exactly once, and every listed child is there.
    fn audit_tree(&self) -> Result<(), String> {
        let mut listed = 1; // the root
        for (path, node) in self.tree.iter() {
            let mut names: Vec<&[u8]> = node.children.iter().collect();
            listed += names.len();
            names.sort_unstable();
            if names.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(format!("{}: a child is listed twice", show(path)));
            }
            if let Some(lost) = names
                .into_iter()
                .map(|name| path.child(name))
                .find(|path| self.tree.get(path.bytes()).is_none())
            {
                return Err(format!("{} is listed but not there", show(&lost)));
            }
            if !self.domains.contains(node.perms.owner()) {
                return Err(format!("{} belongs to no domain", show(path)));
            }
            if node.generation > self.tree.generation() {
                return Err(format!("{} is from the future", show(path)));
            }
        }
        let there = self.tree.iter().count();
        if listed == there {
            Ok(())
        } else {
            Err(format!("{there} nodes are there, {listed} are listed"))
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
        for (domid, kept) in self.domains.usages() {
            let counted = usage.remove(&domid).unwrap_or_default();
            if kept != counted {
                return Err(format!(
                    "domain {domid}: kept {kept:?}, counted {counted:?}"
                ));
            }
        }
        match usage.into_iter().next() {
            None => Ok(()),
            Some((domid, counted)) => {
                Err(format!("domain {domid} is not known, counted {counted:?}"))
            }
        }
    }
}

fn show(path: &Path) -> String {
    String::from_utf8_lossy(path.bytes()).into_owned()
}
