//! `tubes reap`: what dead domains and VMs have left, and its removal.
//!
//! A living VM takes its own nodes away, within its limits. So a half counts as left over only if
//! its other half or domain is missing, and all of it is the same when looked at again later, and
//! still the same at the moment of removal. xenstore-rs has no transactions, so a moment remains
//! between that last look and the removal; a VM that begins a tube of that very number in it has
//! its knock answered late, by a time limit.

use std::io::Write;
use std::time::Duration;

use crate::error::CommandError;
use crate::path::{self, Domid, Role};
use crate::snapshot::Snapshot;
use crate::store::{Store, StoreError};
use crate::tube::{Stage, Tube};

/// Something that nobody living answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A tube with one half.
    Half(Tube),
    /// One of the directories of tubes in the tree of a domain that is no more.
    Ghost(Domid, String),
}

impl Leftover {
    /// What would be removed.
    pub fn path(&self) -> String {
        match self {
            Leftover::Half(tube) if tube.nock.missing() => tube.id.entry(),
            Leftover::Half(tube) => tube.id.knock(),
            Leftover::Ghost(_, path) => path.clone(),
        }
    }

    /// Why.
    pub fn why(&self) -> String {
        match self {
            Leftover::Half(tube) => tube
                .findings()
                .first()
                .map(|finding| finding.text.clone())
                .unwrap_or_default(),
            Leftover::Ghost(domid, _) => format!("domain {domid} does not exist"),
        }
    }
}

/// What may be left over, by one look.
///
/// # Errors
/// The store is lost.
pub fn leftovers(store: &Store) -> Result<Vec<Leftover>, CommandError> {
    let snapshot = Snapshot::take(store)?;
    let mut found = Vec::new();
    let ghosts = snapshot.domains.iter().filter(|(_, domain)| domain.ghost);
    for (domid, _) in ghosts {
        for path in [
            path::door(*domid),
            path::root(*domid, Role::Nock),
            path::root(*domid, Role::Tip),
            path::stats(*domid),
        ] {
            match store.names(&path) {
                Err(error @ StoreError::Lost(_)) => return Err(error.into()),
                Ok(_) | Err(StoreError::TooMany) => found.push(Leftover::Ghost(*domid, path)),
                Err(_) => {}
            }
        }
    }
    let one = |tube: &&Tube| {
        // Of two halves the living side's is taken away by its VM; of none there is nothing.
        tube.nock.missing() != tube.tip.missing()
            && matches!(tube.stage(), Stage::Stale | Stage::OneSided)
            // What lies in a ghost goes with it.
            && !in_ghost(&snapshot, tube)
    };
    found.extend(
        snapshot
            .tubes
            .values()
            .filter(one)
            .cloned()
            .map(Leftover::Half),
    );
    Ok(found)
}

fn still(store: &Store, leftover: &Leftover) -> Result<bool, CommandError> {
    let domains = Snapshot::domains(store)?;
    Ok(match leftover {
        Leftover::Half(tube) => domains.read(store, tube.id)? == *tube,
        Leftover::Ghost(domid, _) => domains.domains.get(domid).is_some_and(|d| d.ghost),
    })
}

fn in_ghost(snapshot: &Snapshot, tube: &Tube) -> bool {
    let owner = if tube.nock.missing() {
        tube.id.tip
    } else {
        tube.id.nock
    };
    snapshot
        .domains
        .get(&owner)
        .is_some_and(|domain| domain.ghost)
}

/// Does it, or says what would be done.
///
/// # Errors
/// The store is lost, or something could not be removed.
pub fn reap(store: &Store, yes: bool, settle: Duration, out: &mut impl Write) -> Result<(), CommandError> {
    let mut found = leftovers(store)?;
    if found.is_empty() {
        return Ok(writeln!(out, "nothing is left over")?);
    }
    if !yes {
        for leftover in &found {
            writeln!(
                out,
                "would remove {}  ({})",
                leftover.path(),
                leftover.why()
            )?;
        }
        writeln!(
            out,
            "nothing was removed; with --yes, what is still the same {} s later is",
            settle.as_secs_f64()
        )?;
        return Ok(());
    }
    std::thread::sleep(settle);
    let later = leftovers(store)?;
    found.retain(|leftover| later.contains(leftover));
    if found.is_empty() {
        return Ok(writeln!(
            out,
            "nothing is left over: its owners were still at it"
        )?);
    }
    let mut failed = 0;
    for leftover in found {
        // Once more, right before.
        if !still(store, &leftover)? {
            continue;
        }
        match store.remove(&leftover.path()) {
            Ok(()) => writeln!(out, "removed {}  ({})", leftover.path(), leftover.why())?,
            Err(error @ StoreError::Lost(_)) => return Err(error.into()),
            Err(error) => {
                failed += 1;
                writeln!(
                    out,
                    "stays {}: {}",
                    leftover.path(),
                    CommandError::from(error).text
                )?;
            }
        }
    }
    match failed {
        0 => Ok(()),
        n => Err(CommandError::failed(format_args!("{n} could not be removed"))),
    }
}
