//! `tubes list`: one line per tube.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use crate::error::CommandError;
use crate::snapshot::Snapshot;
use crate::stats::lease::StatsLease;
use crate::stats::meters::{Meters, Traffic};
use crate::store::Store;
use crate::text::{self, cut, quantity};
use crate::tube::Tube;

/// The column that shrinks when the terminal is narrow.
const ELASTIC: usize = 2;
const ELASTIC_MIN: usize = 8;

/// How long to wait for the rates of all tubes. A rate takes two samples, and a VM publishes one
/// per second.
const RATES_WAIT: Duration = Duration::from_secs(5);

/// Interval between two reads of the counters.
const STEP: Duration = Duration::from_millis(100);

/// Title of an optional column, and the function that fills its cells.
type Column = (&'static str, fn(&Tube, &Meters) -> String);

const ENDS: [Column; 3] = [
    ("EVTCH", |tube, _| number(tube, "event-channel")),
    ("TX-REF", |tube, _| number(tube, "tx-ring-ref")),
    ("RX-REF", |tube, _| number(tube, "rx-ring-ref")),
];

const RATE: [Column; 2] = [
    ("MSG/S", |tube, meters| {
        rate(meters, tube, |traffic| traffic.messages())
    }),
    ("BYTES/S", |tube, meters| {
        rate(meters, tube, |traffic| traffic.bytes())
    }),
];

fn number(tube: &Tube, key: &str) -> String {
    cut(&tube.tip.shown(key).replace(' ', "\\x20"), 14)
}

fn rate(meters: &Meters, tube: &Tube, of: fn(&Traffic) -> f64) -> String {
    meters
        .traffic(tube.id)
        .map_or("-".into(), |traffic| quantity(of(&traffic)))
}

/// Measures the rates of all tubes, for as long as that takes or for some seconds at most.
///
/// # Errors
/// The connection to the store is lost.
pub fn rates(store: &Store, snapshot: &Snapshot) -> Result<Meters, CommandError> {
    let (mut lease, mut meters, begin) = (StatsLease::default(), Meters::default(), Instant::now());
    while begin.elapsed() < RATES_WAIT && !meters.complete(snapshot) {
        lease.renew(store, snapshot, Instant::now())?;
        std::thread::sleep(STEP);
        meters.read(store, snapshot, Instant::now())?;
    }
    lease.withdraw(store)?;
    Ok(meters)
}

/// Writes the table or JSON to `out`; with `meters`, including rates.
///
/// # Errors
/// Writing fails.
pub fn list(
    snapshot: &Snapshot,
    meters: Option<&Meters>,
    json: bool,
    width: usize,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    if json {
        let tubes: Vec<_> = snapshot
            .tubes
            .values()
            .map(|tube| crate::json::tube(snapshot, tube, meters))
            .collect();
        return Ok(writeln!(out, "{}", crate::json::line(&tubes.into()))?);
    }
    let none = Meters::default();
    let columns = if meters.is_some() {
        &RATE[..]
    } else {
        &ENDS[..]
    };
    let meters = meters.unwrap_or(&none);
    let now = SystemTime::now();
    let titles = columns.iter().map(|(title, _)| *title);
    let mut rows: Vec<Vec<String>> = vec![
        ["NOCK", "TIP", "SERVICE", "TID", "STATE", "RING"]
            .into_iter()
            .chain(titles)
            .chain(["AGE"])
            .map(str::to_owned)
            .collect(),
    ];
    for (id, tube) in &snapshot.tubes {
        // The mark follows the state, which even a narrow terminal shows.
        let mark = if tube.findings().is_empty() { "" } else { "!" };
        let mut row = vec![
            snapshot.label(id.nock),
            snapshot.label(id.tip),
            tube.service(),
            id.tid.to_string(),
            format!("{}{mark}", tube.stage().word()),
            tube.rings(),
        ];
        row.extend(columns.iter().map(|(_, cell)| cell(tube, meters)));
        row.push(tube.age(now).map_or("-".into(), text::age));
        rows.push(row);
    }
    let mut widths = vec![0; rows[0].len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let total: usize = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
    widths[ELASTIC] = widths[ELASTIC]
        .saturating_sub(total.saturating_sub(width))
        .max(ELASTIC_MIN.min(widths[ELASTIC]));
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{:width$}", cut(cell, *width), width = *width))
            .collect();
        writeln!(out, "{}", cut(cells.join("  ").trim_end(), width))?;
    }
    Ok(())
}
