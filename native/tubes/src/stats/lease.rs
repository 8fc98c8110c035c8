//! A lease on counters: VMs publish them while it is renewed (docs/wire.md, section 9).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::path::{self, Domid, Role};
use crate::snapshot::Snapshot;
use crate::store::{Store, StoreError, tolerate};
use crate::tube::half::Half;

/// A VM lets a lease expire after ten seconds.
const RENEW: Duration = Duration::from_secs(3);

/// The lease that this process holds in each domain with tubes.
#[derive(Debug)]
pub struct StatsLease {
    holder: String,
    held: BTreeSet<Domid>,
    renewed: Option<Instant>,
}

impl Default for StatsLease {
    fn default() -> StatsLease {
        StatsLease {
            holder: format!("tubes {}", std::process::id()),
            held: BTreeSet::new(),
            renewed: None,
        }
    }
}

impl StatsLease {
    /// Renews the lease in all domains with tubes when that is due. A domain that denies us write
    /// access publishes nothing.
    ///
    /// # Errors
    /// The connection to the store is lost.
    pub fn renew(
        &mut self,
        store: &Store,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Result<(), StoreError> {
        let due = self
            .renewed
            .is_none_or(|renewed| now.duration_since(renewed) >= RENEW);
        if due {
            self.renewed = Some(now);
        }
        for domid in with_tubes(snapshot) {
            let path = path::stats_watch(domid);
            // Inspectors share one node: one that ends removes the lease of the others.
            if (due || store.read(&path) == Err(StoreError::Missing)) && exists(store, domid)? {
                tolerate(store.write(&path, &self.holder))?;
                self.held.insert(domid);
                // The domain may have ended just before the write, which then recreated its tree.
                if !exists(store, domid)? {
                    remove_recreated(store, domid)?;
                }
            }
        }
        Ok(())
    }

    /// Removes the lease wherever nobody else has renewed it since.
    ///
    /// # Errors
    /// The connection to the store is lost.
    pub fn withdraw(&mut self, store: &Store) -> Result<(), StoreError> {
        for domid in std::mem::take(&mut self.held) {
            let path = path::stats_watch(domid);
            if tolerate(store.read(&path).map(Some))?.as_deref() == Some(&self.holder) {
                tolerate(store.remove(&path))?;
            }
        }
        Ok(())
    }
}

fn with_tubes(snapshot: &Snapshot) -> BTreeSet<Domid> {
    let domids = snapshot.tubes.values().flat_map(|tube| {
        [Role::Nock, Role::Tip]
            .into_iter()
            .filter(|role| matches!(tube.half(*role), Half::Here(..)))
            .map(|role| tube.id.domid(role))
    });
    domids
        .filter(|domid| snapshot.domains.get(domid).is_some_and(|d| !d.ghost))
        .collect()
}

/// Whether a domain exists, by the nodes that the toolstack writes for each domain but domain 0.
fn exists(store: &Store, domid: Domid) -> Result<bool, StoreError> {
    if domid == 0 {
        return Ok(true);
    }
    for name in ["domid", "name"] {
        let path = format!("{}/{name}", path::domain(domid));
        if tolerate(store.read(&path).map(|_| true))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn remove_recreated(store: &Store, domid: Domid) -> Result<(), StoreError> {
    tolerate(store.remove(&path::stats(domid)))?;
    let home = path::domain(domid);
    for parent in [format!("{home}/data"), home] {
        if store.names(&parent) == Ok(Vec::new()) {
            tolerate(store.remove(&parent))?;
        }
    }
    Ok(())
}
