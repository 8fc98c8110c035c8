//! `tubes reap`: finds what dead domains and VMs have left behind, and removes it.
//!
//! A live VM removes its own nodes within its time limits. So a half is a leftover only if the
//! other half or its domain is missing, and if it is unchanged some time later and again right
//! before its removal. xenstore-rs has no transactions, so a VM can reuse the tube's number between
//! that last check and the removal; its open request then times out.

use std::io::Write;
use std::time::Duration;

use crate::error::CommandError;
use crate::path::{self, Domid, Role};
use crate::snapshot::Snapshot;
use crate::store::{Store, StoreError};
use crate::tube::Tube;
use crate::tube::stage::Stage;

/// Nodes that no live VM owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A tube with one half.
    Half(Tube),
    /// One of the directories for tubes in the tree of a domain that no longer exists.
    Ghost(Domid, String),
}

impl Leftover {
    /// The path to remove.
    pub fn path(&self) -> String {
        match self {
            Leftover::Half(tube) if tube.nock.missing() => tube.id.tip_node(),
            Leftover::Half(tube) => tube.id.nock_node(),
            Leftover::Ghost(_, path) => path.clone(),
        }
    }

    /// Why it is a leftover.
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

/// Finds the candidates in the current state of the store.
///
/// # Errors
/// The connection to the store is lost.
pub fn leftovers(store: &Store) -> Result<Vec<Leftover>, CommandError> {
    let snapshot = Snapshot::take(store)?;
    let mut found = Vec::new();
    let ghosts = snapshot.domains.iter().filter(|(_, domain)| domain.ghost);
    for (domid, _) in ghosts {
        for path in [
            path::service_directory(*domid),
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
        // If both halves exist, the live VM removes its own.
        tube.nock.missing() != tube.tip.missing()
            && matches!(tube.stage(), Stage::Stale | Stage::OneSided)
            // A ghost is removed with all that is in it.
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

/// Removes leftovers if `yes`, and otherwise lists them.
///
/// # Errors
/// The connection to the store is lost, or a leftover could not be removed.
pub fn reap(
    store: &Store,
    yes: bool,
    settle: Duration,
    out: &mut impl Write,
) -> Result<(), CommandError> {
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
            "nothing was removed; --yes removes what is unchanged after {} s",
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
            "nothing is left over: all of it has changed or gone meanwhile"
        )?);
    }
    let mut failed = 0;
    for leftover in found {
        // Check once more right before the removal.
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
                    "cannot remove {}: {}",
                    leftover.path(),
                    CommandError::from(error).text
                )?;
            }
        }
    }
    match failed {
        0 => Ok(()),
        n => Err(CommandError::failed(format_args!(
            "{n} leftovers could not be removed"
        ))),
    }
}
