//! All tubes and domains that this connection may read.
//!
//! The number of tubes per domain is bounded, so that a domain that writes too many cannot hide
//! those of others. A note reports what was left out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error::CommandError;
use crate::path::{self, Domid, Id, Role, domid, number};
use crate::store::{Store, StoreError, tolerate};
use crate::tube::Tube;
use crate::tube::half::{Half, NOCK_KEYS, Nodes, TIP_KEYS, Value};
use crate::tube::stage::Stage;

/// Maximum number of halves to read per domain and role. Xen's own quota is 1,000 nodes in all.
const HALVES_MAX: usize = 1024;

/// How long to wait before rereading a tube whose halves disagree.
const REREAD_DELAY: Duration = Duration::from_millis(20);

/// A domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domain {
    /// The name that the toolstack gave it.
    pub name: Option<String>,
    /// It lacks the toolstack's nodes: the rest of the tree of a dead domain.
    pub ghost: bool,
}

/// The domains and tubes at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Whether all domains could be listed. If not, only our own is here.
    pub whole: bool,
    /// By number.
    pub domains: BTreeMap<Domid, Domain>,
    /// By nock, tip and number.
    pub tubes: BTreeMap<Id, Tube>,
    /// What was left out and why.
    pub notes: Vec<String>,
}

impl Snapshot {
    /// Reads the domains only.
    ///
    /// # Errors
    /// The connection to the store is lost, or our own domain is unknown.
    pub fn domains(store: &Store) -> Result<Snapshot, StoreError> {
        let mut snapshot = Snapshot::default();
        let names = match store.names(path::DOMAINS) {
            Err(StoreError::Denied | StoreError::TooMany) => vec![store.read("domid")?],
            Err(StoreError::Missing) => Vec::new(),
            other => {
                snapshot.whole = true;
                other?
            }
        };
        for domid in names.iter().filter_map(|name| domid(name)) {
            let name = tolerate(store.read(&(path::domain(domid) + "/name")).map(Some))?;
            let own = store.read(&(path::domain(domid) + "/domid"));
            if let Err(StoreError::Lost(why)) = own {
                return Err(StoreError::Lost(why));
            }
            let ghost = domid != 0 && name.is_none() && own == Err(StoreError::Missing);
            snapshot.domains.insert(domid, Domain { name, ghost });
        }
        Ok(snapshot)
    }

    /// Rereads the domains.
    ///
    /// # Errors
    /// As [`Snapshot::domains`].
    pub fn refresh(&mut self, store: &Store) -> Result<(), StoreError> {
        let now = Snapshot::domains(store)?;
        (self.whole, self.domains) = (now.whole, now.domains);
        Ok(())
    }

    /// Reads all domains and tubes.
    ///
    /// # Errors
    /// As [`Snapshot::domains`].
    pub fn take(store: &Store) -> Result<Snapshot, StoreError> {
        let mut snapshot = Snapshot::domains(store)?;
        let mut ids = BTreeSet::new();
        for domid in snapshot.domains.keys().copied().collect::<Vec<_>>() {
            for role in [Role::Nock, Role::Tip] {
                ids.extend(snapshot.halves(store, domid, role)?);
            }
        }
        for id in ids {
            let tube = snapshot.read(store, id)?;
            if !tube.absent() {
                snapshot.tubes.insert(id, tube);
            }
        }
        Ok(snapshot)
    }

    /// The tubes of which a domain has the half with this role.
    fn halves(&mut self, store: &Store, domid: Domid, role: Role) -> Result<Vec<Id>, StoreError> {
        let root = path::root(domid, role);
        let mut ids = Vec::new();
        for peer in self.list(store, &root)? {
            let Some(peer_id) = path::domid(&peer) else {
                continue;
            };
            for tid in self.list(store, &format!("{root}/{peer}"))? {
                let Some(tid) = number(&tid) else { continue };
                ids.push(match role {
                    Role::Nock => Id {
                        nock: domid,
                        tip: peer_id,
                        tid,
                    },
                    Role::Tip => Id {
                        nock: peer_id,
                        tip: domid,
                        tid,
                    },
                });
                if ids.len() == HALVES_MAX {
                    self.notes.push(format!(
                        "domain {domid} has more than {HALVES_MAX} tubes as {}: the others are left out",
                        role.word()
                    ));
                    return Ok(ids);
                }
            }
        }
        Ok(ids)
    }

    fn list(&mut self, store: &Store, directory: &str) -> Result<Vec<String>, StoreError> {
        let names = store.names(directory);
        if names == Err(StoreError::TooMany) {
            self.notes.push(format!(
                "{directory} has too many names for one reply: left out"
            ));
        }
        tolerate(names)
    }

    /// Reads one tube.
    ///
    /// # Errors
    /// The connection to the store is lost.
    pub fn read(&self, store: &Store, id: Id) -> Result<Tube, StoreError> {
        let gone: BTreeSet<Domid> = [id.nock, id.tip]
            .into_iter()
            .filter(|domid| self.whole && self.domains.get(domid).is_none_or(|d| d.ghost))
            .collect();
        let read = || -> Result<Tube, StoreError> {
            Ok(Tube {
                id,
                nock: half(store, &id.nock_node(), &NOCK_KEYS)?,
                tip: half(store, &id.tip_node(), &TIP_KEYS)?,
                gone: gone.iter().copied().collect(),
            })
        };
        // The tube may have changed between the reads of its two halves.
        let first = read()?;
        if matches!(first.stage(), Stage::Broken | Stage::OneSided) {
            std::thread::sleep(REREAD_DELAY);
            return read();
        }
        Ok(first)
    }

    /// A label of a domain for people: its number, with its name unless that only repeats it.
    pub fn label(&self, domid: Domid) -> String {
        let name = self
            .domains
            .get(&domid)
            .and_then(|domain| domain.name.as_deref());
        match name {
            Some(name) if name != format!("dom{domid}") && name != format!("Domain-{domid}") => {
                format!("{domid}:{}", crate::text::cut(&crate::text::word(name), 16))
            }
            _ => domid.to_string(),
        }
    }

    /// Finds a domain by the number or name that the user gave.
    ///
    /// # Errors
    /// No domain or more than one has this name.
    pub fn find(&self, name: &str) -> Result<Domid, CommandError> {
        if let Some(domid) = domid(name) {
            return Ok(domid);
        }
        let named: Vec<Domid> = self
            .domains
            .iter()
            .filter(|(_, domain)| domain.name.as_deref() == Some(name))
            .map(|(domid, _)| *domid)
            .collect();
        match named[..] {
            [domid] => Ok(domid),
            [] => Err(CommandError::failed(format_args!(
                "no domain is named {}",
                crate::text::escape(name)
            ))),
            _ => Err(CommandError::failed(format_args!(
                "several domains are named {}: {named:?}; use the number",
                crate::text::escape(name)
            ))),
        }
    }
}

fn half(store: &Store, directory: &str, keys: &[&'static str]) -> Result<Half, StoreError> {
    let names = match store.names(directory) {
        Err(error @ StoreError::Lost(_)) => return Err(error),
        Err(StoreError::Missing) => return Ok(Half::Missing),
        Err(StoreError::TooMany) => return Ok(Half::Here(Nodes::new(), usize::MAX)),
        // Without read access to the parent, absent looks like forbidden.
        Err(_) => return Ok(Half::Denied),
        Ok(names) => names,
    };
    let mut nodes = Nodes::new();
    for key in keys {
        if !names.iter().any(|name| name == key) {
            continue;
        }
        let value = match store.read(&format!("{directory}/{key}")) {
            Err(error @ StoreError::Lost(_)) => return Err(error),
            Err(StoreError::Missing) => continue,
            Err(StoreError::Binary) => Value::Binary,
            Err(_) => Value::Denied,
            Ok(text) => Value::Text(text),
        };
        nodes.insert(key, value);
    }
    let unknown = names.iter().filter(|name| !keys.contains(&name.as_str()));
    Ok(Half::Here(nodes, unknown.count()))
}
