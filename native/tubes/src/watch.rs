//! `tubes watch`: a line for each thing that happens.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use crate::events::{Event, Events};
use crate::error::CommandError;
use crate::path::DOMAINS;
use crate::snapshot::Snapshot;
use crate::store::{Store, StoreError};
use crate::watches::Watches;

/// How often it is looked for what stays behind.
const TICK: Duration = Duration::from_millis(500);

/// Between two looks at everything: a domain can ask for one whenever it likes.
const WIDE: Duration = Duration::from_millis(100);

/// Goes on until the store or the reader has gone.
///
/// # Errors
/// Either.
pub fn watch(store: &Store, json: bool, out: &mut impl Write) -> Result<(), CommandError> {
    let watches = Watches::start();
    let mut events = Events::default();
    let mut snapshot = Snapshot::default();
    let (mut first, mut all, mut wide) = (true, true, None::<Instant>);
    loop {
        let since = wide.map_or(WIDE, |last| last.elapsed());
        let limit = if all {
            WIDE.saturating_sub(since)
        } else {
            TICK
        };
        let dirty = watches.wait(limit)?;
        if dirty.tubes.is_empty() && !dirty.all {
            // The watches of xenstore-rs do not end with their connection: only a question tells.
            if let Err(error @ StoreError::Lost(_)) = store.read(DOMAINS) {
                return Err(error.into());
            }
        }
        all |= dirty.all;
        let mut happened = Vec::new();
        if all && wide.is_none_or(|last| last.elapsed() >= WIDE) {
            (all, wide) = (false, Some(Instant::now()));
            snapshot = Snapshot::take(store)?;
            for tube in snapshot.tubes.values() {
                happened.extend(events.look(tube, Instant::now(), first));
            }
            for id in events.ids() {
                if !snapshot.tubes.contains_key(&id) {
                    let tube = snapshot.read(store, id)?;
                    happened.extend(events.look(&tube, Instant::now(), false));
                }
            }
            first = false;
        }
        if !first {
            let mut refreshed = false;
            for id in dirty.tubes {
                let mut tube = snapshot.read(store, id)?;
                if tube.absent() && !refreshed {
                    // Why it went is told by which domains there still are.
                    refreshed = true;
                    snapshot.refresh(store)?;
                    tube = snapshot.read(store, id)?;
                }
                happened.extend(events.look(&tube, Instant::now(), false));
            }
        } else {
            all |= !dirty.tubes.is_empty();
        }
        happened.extend(events.tick(Instant::now()));
        for event in &happened {
            writeln!(out, "{}", line(&snapshot, event, json))?;
        }
        if !happened.is_empty() {
            out.flush()?;
        }
    }
}

fn line(snapshot: &Snapshot, event: &Event, json: bool) -> String {
    let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let (id, what) = (event.id, event.what.word());
    if json {
        return crate::json::line(&json!({
            "time": time, "event": what, "nock": id.nock, "tip": id.tip, "tid": id.tid,
            "service": event.service, "now": event.now,
        }));
    }
    let (nock, tip) = (snapshot.called(id.nock), snapshot.called(id.tip));
    let line = format!(
        "{time}  {what:9}  {nock} -> {tip} tube {}  {}  {}",
        id.tid, event.service, event.now
    );
    line.trim_end().to_owned()
}
