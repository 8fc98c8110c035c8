//! Checks of the store and of the tubes in it.

use super::check::{Check, Grade};
use crate::error::CommandError;
use crate::reap;
use crate::snapshot::Snapshot;
use crate::socket::Found;
use crate::store::Store;

pub fn checks(found: Result<Found, CommandError>) -> Vec<Check> {
    let found = match found {
        Ok(found) => found,
        Err(fault) => {
            let cure = "start a VM that listens, which starts a hub; or run tube-hub or xenstored";
            return vec![Check::bad("store", Grade::Warning, fault.text, cure)];
        }
    };
    let place = match &found.socket {
        Some(socket) => format!("{} ({})", socket.display(), found.source),
        None => found.source.clone(),
    };
    match Store::open()
        .map_err(CommandError::failed)
        .and_then(|store| contents(&store, place))
    {
        Ok(checks) => checks,
        Err(fault) => vec![Check::bad(
            "store",
            Grade::Wrong,
            fault.text,
            "check that a store listens there, or name another socket with --socket",
        )],
    }
}

fn contents(store: &Store, place: String) -> Result<Vec<Check>, CommandError> {
    let snapshot = Snapshot::take(store)?;
    let sees = if snapshot.whole {
        "all domains"
    } else {
        "only our own domain"
    };
    let mut checks = vec![Check::fine(
        "store",
        format!("{place} replies, and shows {sees}"),
    )];
    let suspect = snapshot
        .tubes
        .values()
        .filter(|tube| !tube.findings().is_empty());
    let (all, suspect) = (snapshot.tubes.len(), suspect.count());
    checks.push(if suspect == 0 {
        Check::fine("tubes", format!("{all} tubes, with no findings"))
    } else {
        let cure = "find them in tubes list, which marks them with !, then run tubes show DOM";
        Check::bad(
            "tubes",
            Grade::Warning,
            format!("{suspect} of {all} tubes have findings"),
            cure,
        )
    });
    let left = reap::leftovers(store)?.len();
    if left > 0 {
        let found = format!("{left} nodes look left over from dead domains or VMs");
        checks.push(Check::bad(
            "leftovers",
            Grade::Warning,
            found,
            "run tubes reap to see them, then tubes reap --yes to remove them",
        ));
    }
    for note in snapshot.notes {
        let cure = "inspect that domain: it writes more than any VM does";
        checks.push(Check::bad("limits", Grade::Warning, note, cure));
    }
    Ok(checks)
}
