//! `tubes watch`: one line per event.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use crate::error::CommandError;
use crate::events::{Event, Tracker};
use crate::path::DOMAINS;
use crate::snapshot::Snapshot;
use crate::store::{Store, StoreError};
use crate::watches::Watches;

/// How often to check for stale halves.
const TICK: Duration = Duration::from_millis(500);

/// Minimum interval between two full scans. Any domain can provoke one at any time.
const SCAN_INTERVAL: Duration = Duration::from_millis(100);

/// Runs until the store or the reader of the output is gone.
///
/// # Errors
/// Either has ended.
pub fn watch(store: &Store, json: bool, out: &mut impl Write) -> Result<(), CommandError> {
    let watches = Watches::start();
    let mut tracker = Tracker::default();
    let mut snapshot = Snapshot::default();
    let (mut first, mut all, mut scanned) = (true, true, None::<Instant>);
    loop {
        let since = scanned.map_or(SCAN_INTERVAL, |last| last.elapsed());
        let limit = if all {
            SCAN_INTERVAL.saturating_sub(since)
        } else {
            TICK
        };
        let dirty = watches.wait(limit)?;
        if dirty.tubes.is_empty() && !dirty.all {
            // xenstore-rs does not end watches when their connection is lost, so probe the store.
            if let Err(error @ StoreError::Lost(_)) = store.read(DOMAINS) {
                return Err(error.into());
            }
        }
        all |= dirty.all;
        let mut events = Vec::new();
        if all && scanned.is_none_or(|last| last.elapsed() >= SCAN_INTERVAL) {
            (all, scanned) = (false, Some(Instant::now()));
            snapshot = Snapshot::take(store)?;
            for tube in snapshot.tubes.values() {
                events.extend(tracker.observe(tube, Instant::now(), first));
            }
            for id in tracker.ids() {
                if !snapshot.tubes.contains_key(&id) {
                    let tube = snapshot.read(store, id)?;
                    events.extend(tracker.observe(&tube, Instant::now(), false));
                }
            }
            first = false;
        }
        if !first {
            let mut refreshed = false;
            for id in dirty.tubes {
                let mut tube = snapshot.read(store, id)?;
                if tube.absent() && !refreshed {
                    // Whether its domains still exist shows why it is gone.
                    refreshed = true;
                    snapshot.refresh(store)?;
                    tube = snapshot.read(store, id)?;
                }
                events.extend(tracker.observe(&tube, Instant::now(), false));
            }
        } else {
            all |= !dirty.tubes.is_empty();
        }
        events.extend(tracker.tick(Instant::now()));
        for event in &events {
            writeln!(out, "{}", line(&snapshot, event, json))?;
        }
        if !events.is_empty() {
            out.flush()?;
        }
    }
}

fn line(snapshot: &Snapshot, event: &Event, json: bool) -> String {
    let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let (id, kind) = (event.id, event.kind.word());
    if json {
        return crate::json::line(&json!({
            "time": time, "event": kind, "nock": id.nock, "tip": id.tip, "tid": id.tid,
            "service": event.service, "now": event.now,
        }));
    }
    let (nock, tip) = (snapshot.label(id.nock), snapshot.label(id.tip));
    let line = format!(
        "{time}  {kind:9}  {nock} -> {tip} tube {}  {}  {}",
        id.tid, event.service, event.now
    );
    line.trim_end().to_owned()
}
