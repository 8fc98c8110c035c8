//! Says to the VMs that we look at their counters, as long as we do (docs/wire.md, section 9).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::path::{self, Domid, Role};
use crate::snapshot::{Snapshot, tolerate};
use crate::store::{Error, Store};
use crate::tube::Half;

/// A VM takes a wish for over after ten seconds.
const RENEW: Duration = Duration::from_secs(3);

/// Our wishes.
#[derive(Debug)]
pub struct Wishes {
    who: String,
    asked: BTreeSet<Domid>,
    at: Option<Instant>,
}

impl Default for Wishes {
    fn default() -> Wishes {
        Wishes {
            who: format!("tubes {}", std::process::id()),
            asked: BTreeSet::new(),
            at: None,
        }
    }
}

impl Wishes {
    /// Asks all domains that have tubes, if they have not been asked lately. One that does not let us
    /// shows nothing.
    ///
    /// # Errors
    /// The store is lost.
    pub fn renew(&mut self, store: &Store, snapshot: &Snapshot, now: Instant) -> Result<(), Error> {
        let all = self.at.is_none_or(|at| now.duration_since(at) >= RENEW);
        if all {
            self.at = Some(now);
        }
        for domid in having_tubes(snapshot) {
            // Another one's wish that ended took ours with it.
            let place = path::wish(domid);
            if (all || store.read(&place) == Err(Error::Missing)) && exists(store, domid)? {
                tolerate(store.write(&place, &self.who))?;
                self.asked.insert(domid);
                // It may have ended right then, and we have brought a piece of its tree back.
                if !exists(store, domid)? {
                    forget(store, domid)?;
                }
            }
        }
        Ok(())
    }

    /// Takes back what nobody else has asked for since.
    ///
    /// # Errors
    /// The store is lost.
    pub fn withdraw(&mut self, store: &Store) -> Result<(), Error> {
        for domid in std::mem::take(&mut self.asked) {
            let place = path::wish(domid);
            if tolerate(store.read(&place).map(Some))?.as_deref() == Some(&self.who) {
                tolerate(store.remove(&place))?;
            }
        }
        Ok(())
    }
}

fn having_tubes(snapshot: &Snapshot) -> BTreeSet<Domid> {
    let halves = snapshot.tubes.values().flat_map(|tube| {
        [Role::Nock, Role::Tip]
            .into_iter()
            .filter(|role| matches!(tube.half(*role), Half::Here(..)))
            .map(|role| tube.id.domid(role))
    });
    halves
        .filter(|domid| snapshot.domains.get(domid).is_some_and(|d| !d.ghost))
        .collect()
}

/// What the toolstack writes for each domain but the first.
fn exists(store: &Store, domid: Domid) -> Result<bool, Error> {
    let own = store.read(&(path::domain(domid) + "/domid"));
    let known = tolerate(own.map(|_| true))?;
    Ok(
        domid == 0
            || known
            || tolerate(store.read(&(path::domain(domid) + "/name")).map(|_| true))?,
    )
}

fn forget(store: &Store, domid: Domid) -> Result<(), Error> {
    tolerate(store.remove(&path::stats(domid)))?;
    let home = path::domain(domid);
    for parent in [format!("{home}/data"), home] {
        if store.names(&parent) == Ok(Vec::new()) {
            tolerate(store.remove(&parent))?;
        }
    }
    Ok(())
}
