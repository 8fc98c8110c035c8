//! The domains that the store knows, their usage, and how they are added and removed.

use std::collections::BTreeMap;

use super::access::Access;
use super::connection::ConnectionError;
use super::path::Path;
use super::perms::{Domid, Permission, Perms, Rights, Subject};
use super::watch::{ConnId, Reach};
use super::{Notice, Xenstored};

/// The first number that is not a domain (`DOMID_FIRST_RESERVED`).
pub const FIRST_RESERVED: Domid = 0x7FF0;

/// The special node that fires when a domain is introduced.
pub const INTRODUCE_DOMAIN: &[u8] = b"@introduceDomain";

/// The special node that fires when a domain is released.
pub const RELEASE_DOMAIN: &[u8] = b"@releaseDomain";

/// What a domain uses of each resource that has a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nodes owned in the tree.
    pub nodes: usize,
    /// Bytes of those nodes with their names, of watches, and of nodes in transactions.
    pub memory: usize,
    /// Watches, on all connections.
    pub watches: usize,
    /// Open transactions, on all connections.
    pub transactions: usize,
}

/// An introduced domain.
pub struct Domain {
    /// Generation of the tree when the domain was introduced. Permissions in older lists are not
    /// for this domain.
    generation: u64,
    /// Introduced and released by [`Xenstored::introduce`] and [`Xenstored::release`], not by
    /// INTRODUCE and RELEASE requests.
    hosted: bool,
    /// The domain whose rights it shares.
    pub target: Option<Domid>,
    /// What it uses.
    pub usage: Usage,
}

/// All domains, and the permissions of the special nodes.
pub struct Domains {
    known: BTreeMap<Domid, Domain>,
    introduce: Perms,
    release: Perms,
}

impl Domains {
    /// Domain 0 alone. Only domain 0 may read the special nodes.
    pub fn new() -> Domains {
        let own = || Perms::new(Permission::new(Rights::NONE, 0), &[]);
        let mut domains = Domains {
            known: BTreeMap::new(),
            introduce: own(),
            release: own(),
        };
        domains.add(0, 0, true);
        domains
    }

    fn add(&mut self, domid: Domid, generation: u64, hosted: bool) {
        self.known.insert(
            domid,
            Domain {
                generation,
                hosted,
                target: None,
                usage: Usage::default(),
            },
        );
    }

    /// Whether the domain has been introduced.
    pub fn contains(&self, domid: Domid) -> bool {
        self.known.contains_key(&domid)
    }

    /// Whether INTRODUCE and RELEASE requests are refused for the domain.
    pub fn is_hosted(&self, domid: Domid) -> bool {
        self.known.get(&domid).is_some_and(|domain| domain.hosted)
    }

    /// Whether a permission written at `generation` is for the domain that has this number now.
    pub fn valid(&self, domid: Domid, generation: u64) -> bool {
        self.known
            .get(&domid)
            .is_some_and(|domain| domain.generation <= generation)
    }

    /// Mutable access to a domain.
    pub fn get_mut(&mut self, domid: Domid) -> Option<&mut Domain> {
        self.known.get_mut(&domid)
    }

    /// What the domain uses; nothing if it is unknown.
    pub fn usage(&self, domid: Domid) -> Usage {
        self.known
            .get(&domid)
            .map_or_else(Usage::default, |domain| domain.usage)
    }

    /// What every domain uses.
    #[cfg(feature = "audit")]
    pub fn usages(&self) -> impl Iterator<Item = (Domid, Usage)> {
        self.known
            .iter()
            .map(|(domid, domain)| (*domid, domain.usage))
    }

    /// Changes what the domain uses, if it is known.
    pub fn charge(&mut self, domid: Domid, change: impl FnOnce(&mut Usage)) {
        if let Some(domain) = self.known.get_mut(&domid) {
            change(&mut domain.usage);
        }
    }

    /// The subject of requests from this domain's connections.
    pub fn subject(&self, domid: Domid) -> Subject {
        Subject {
            domid,
            target: self.known.get(&domid).and_then(|domain| domain.target),
        }
    }

    fn special(&self, name: &[u8]) -> Option<&Perms> {
        match name {
            INTRODUCE_DOMAIN => Some(&self.introduce),
            RELEASE_DOMAIN => Some(&self.release),
            _ => None,
        }
    }

    /// Sets the permissions of a special node.
    pub fn set_special(&mut self, name: &[u8], perms: Perms) {
        match name {
            INTRODUCE_DOMAIN => self.introduce = perms,
            RELEASE_DOMAIN => self.release = perms,
            _ => {}
        }
    }

    /// The rights of `subject` on a special node; None if there is no such node. All permissions
    /// are for the present domains: a domain's permissions are removed with it.
    pub fn special_rights(&self, name: &[u8], subject: Subject) -> Option<Rights> {
        let perms = self.special(name)?;
        Some(perms.rights(subject, |_| true))
    }
}

/// The home of a domain: the node above all its nodes.
pub fn home(domid: Domid) -> String {
    format!("/local/domain/{domid}")
}

impl Xenstored {
    /// Adds a domain; false if it is known already.
    pub(super) fn add_domain(&mut self, domid: Domid, hosted: bool) -> bool {
        if self.domains.contains(domid) {
            return false;
        }
        self.domains.add(domid, self.tree.generation(), hosted);
        true
    }

    /// Creates the nodes that libxl creates for a new domain, as far as they matter without Xen.
    pub(super) fn create_nodes(&mut self, domid: Domid) {
        let number = domid.to_string();
        let name = if domid == 0 {
            "Domain-0".to_owned()
        } else {
            format!("dom{domid}")
        };
        let readable = Perms::new(
            Permission::new(Rights::NONE, 0),
            &[Permission::new(Rights::READ, domid)],
        );
        let private = Perms::new(Permission::new(Rights::NONE, domid), &[]);
        let own = [
            ("", "", &readable),
            ("/name", name.as_str(), &readable),
            ("/domid", number.as_str(), &readable),
            ("/device", "", &readable),
            ("/control", "", &readable),
            ("/control/shutdown", "", &private),
            ("/data", "", &private),
        ];
        // xen-init-dom0 writes only these for domain 0, and leaves them private.
        let dom0 = [
            ("/name", name.as_str(), &private),
            ("/domid", number.as_str(), &private),
        ];
        let nodes = if domid == 0 { dom0.as_slice() } else { &own };
        let mut access = Access::privileged(self);
        for (below, value, perms) in nodes {
            access.set_node(&Path::own(&(home(domid) + below)), value.as_bytes(), perms);
        }
    }

    /// Removes a domain, in the order of C xenstored: its connections; every node that it owns,
    /// anywhere, with all descendants, whose watches fire while the permissions still exist; then
    /// fires `@releaseDomain`.
    pub(super) fn remove_domain(&mut self, domid: Domid) {
        let conns: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|(_, conn)| conn.domid == domid)
            .map(|(id, _)| *id)
            .collect();
        for conn in conns {
            self.disconnect(conn);
            self.notices
                .push(Notice::Close(conn, ConnectionError::Unknown));
        }
        Access::privileged(self).reassign_root(domid);
        let owned = self
            .tree
            .select(&Path::root(), |node| node.perms.owner() == domid);
        let mut access = Access::privileged(self);
        for path in owned {
            access.remove_node(&path);
        }
        self.domains.introduce.remove(domid);
        self.domains.release.remove(domid);
        self.domains.known.remove(&domid);
        // A later domain of this number is then younger than every permission for this one. C
        // xenstored confuses the two if nothing was written in between.
        self.tree.next_generation();
        for domain in self.domains.known.values_mut() {
            domain.target = domain.target.filter(|target| *target != domid);
        }
        self.fire(RELEASE_DOMAIN, None, Reach::Exact, None);
    }
}
