//! All tubes and their domains, as far as this connection may read them.
//!
//! Bounded by domain, so that no domain can crowd out what others have: one that writes more than
//! any VM would is cut, and that is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::path::{self, Domid, Id, Role, domid, number};
use crate::store::{Store, StoreError};
use crate::tube::{Half, NOCK_KEYS, Nodes, Stage, TIP_KEYS, Tube, Value};

/// Halves that are looked at per domain and role. Xen's own quota is 1,000 nodes in all.
const HALVES_MAX: usize = 1024;

/// A tube in motion is looked at again after that long.
const MOTION: Duration = Duration::from_millis(20);

/// A domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domain {
    /// What the toolstack calls it.
    pub name: Option<String>,
    /// No toolstack's nodes: only a dead domain's tree looks so.
    pub ghost: bool,
}

/// What there is.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Whether all domains could be listed; else only our own is here.
    pub whole: bool,
    /// By number.
    pub domains: BTreeMap<Domid, Domain>,
    /// By who, whom and number.
    pub tubes: BTreeMap<Id, Tube>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Nodes that are not there, or not for us, are no error here.
pub fn tolerate<T: Default>(result: Result<T, StoreError>) -> Result<T, StoreError> {
    match result {
        Err(error @ StoreError::Lost(_)) => Err(error),
        Err(_) => Ok(T::default()),
        ok => ok,
    }
}

impl Snapshot {
    /// Domains only.
    ///
    /// # Errors
    /// The store is lost, or does not even tell us who we are.
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

    /// Looks again which domains there are.
    ///
    /// # Errors
    /// As [`Snapshot::domains`].
    pub fn refresh(&mut self, store: &Store) -> Result<(), StoreError> {
        let now = Snapshot::domains(store)?;
        (self.whole, self.domains) = (now.whole, now.domains);
        Ok(())
    }

    /// Everything.
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

    /// The tubes of which a domain holds a half of that role.
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
                    self.notes.push(format!("domain {domid} has more than {HALVES_MAX} tubes as {}: the others are not looked at", role.word()));
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
                "{directory} has too many names for one answer: not looked at"
            ));
        }
        tolerate(names)
    }

    /// One tube, as it is now.
    ///
    /// # Errors
    /// The store is lost.
    pub fn read(&self, store: &Store, id: Id) -> Result<Tube, StoreError> {
        let gone: BTreeSet<Domid> = [id.nock, id.tip]
            .into_iter()
            .filter(|domid| self.whole && self.domains.get(domid).is_none_or(|d| d.ghost))
            .collect();
        let look = || -> Result<Tube, StoreError> {
            Ok(Tube {
                id,
                nock: half(store, &id.knock(), &NOCK_KEYS)?,
                tip: half(store, &id.entry(), &TIP_KEYS)?,
                gone: gone.iter().copied().collect(),
            })
        };
        // The halves are read one after the other, and may have moved meanwhile.
        let first = look()?;
        if matches!(first.stage(), Stage::Broken | Stage::OneSided) {
            std::thread::sleep(MOTION);
            return look();
        }
        Ok(first)
    }

    /// A domain for people: its number, and its name if that says more.
    pub fn called(&self, domid: Domid) -> String {
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

    /// The domain that a user means: a number or a name.
    ///
    /// # Errors
    /// No domain is called so, or several are.
    pub fn find(&self, who: &str) -> Result<Domid, crate::error::CommandError> {
        if let Some(domid) = domid(who) {
            return Ok(domid);
        }
        let named: Vec<Domid> = self
            .domains
            .iter()
            .filter(|(_, domain)| domain.name.as_deref() == Some(who))
            .map(|(domid, _)| *domid)
            .collect();
        match named[..] {
            [domid] => Ok(domid),
            [] => Err(crate::error::CommandError::failed(format_args!(
                "no domain is called {}",
                crate::text::escape(who)
            ))),
            _ => Err(crate::error::CommandError::failed(format_args!(
                "several domains are called {}: {named:?}; say the number",
                crate::text::escape(who)
            ))),
        }
    }
}

fn half(store: &Store, directory: &str, keys: &[&'static str]) -> Result<Half, StoreError> {
    let names = match store.names(directory) {
        Err(error @ StoreError::Lost(_)) => return Err(error),
        Err(StoreError::Missing) => return Ok(Half::Missing),
        // Below what may not be read, absent looks like forbidden.
        Err(StoreError::TooMany) => return Ok(Half::Here(Nodes::new(), usize::MAX)),
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
    let strange = names.iter().filter(|name| !keys.contains(&name.as_str()));
    Ok(Half::Here(nodes, strange.count()))
}
