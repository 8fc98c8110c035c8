//! The store: does it answer, and are all tubes in it well?

use super::{Check, Grade};
use crate::error::CommandError;
use crate::reap;
use crate::snapshot::Snapshot;
use crate::socket::Found;
use crate::store::Store;

pub fn checks(found: Result<Found, CommandError>) -> Vec<Check> {
    let found = match found {
        Ok(found) => found,
        Err(fault) => {
            let cure =
                "start a VM that listens (it starts a hub), or tube-hub, or xenstored in dom0";
            return vec![Check::bad("store", Grade::Warning, fault.text, cure)];
        }
    };
    let place = match &found.socket {
        Some(socket) => format!("{} ({})", socket.display(), found.source),
        None => found.source.clone(),
    };
    match Store::open()
        .map_err(CommandError::failed)
        .and_then(|store| look(&store, place))
    {
        Ok(checks) => checks,
        Err(fault) => vec![Check::bad(
            "store",
            Grade::Wrong,
            fault.text,
            "is it a store that listens there? see --socket",
        )],
    }
}

fn look(store: &Store, place: String) -> Result<Vec<Check>, CommandError> {
    let snapshot = Snapshot::take(store)?;
    let sees = if snapshot.whole {
        "all domains"
    } else {
        "our own domain only"
    };
    let mut checks = vec![Check::fine(
        "store",
        format!("{place} answers, and shows {sees}"),
    )];
    let ill = snapshot
        .tubes
        .values()
        .filter(|tube| !tube.findings().is_empty());
    let (all, ill) = (snapshot.tubes.len(), ill.count());
    checks.push(if ill == 0 {
        Check::fine("tubes", format!("{all} tubes, both sides of each agree"))
    } else {
        let cure = "tubes list marks them !, tubes show DOM says what is wrong";
        Check::bad(
            "tubes",
            Grade::Warning,
            format!("{ill} of {all} tubes have findings"),
            cure,
        )
    });
    let left = reap::leftovers(store)?.len();
    if left > 0 {
        let found = format!("{left} places look left over by the dead");
        checks.push(Check::bad(
            "leftovers",
            Grade::Warning,
            found,
            "tubes reap, then tubes reap --yes",
        ));
    }
    for note in snapshot.notes {
        let cure = "that domain writes what no VM of ours does: look at it";
        checks.push(Check::bad("limits", Grade::Warning, note, cure));
    }
    Ok(checks)
}
