//! `tubes list`: a line for each tube.

use std::io::Write;

use crate::fault::Fault;
use crate::snapshot::Snapshot;
use crate::text::cut;

const HEADER: [&str; 8] = [
    "NOCK", "TIP", "SERVICE", "TID", "STATE", "EVTCH", "TX-REF", "RX-REF",
];

/// The column that gives way when the terminal is narrow.
const ELASTIC: usize = 2;
const ELASTIC_MIN: usize = 8;

/// Writes the table, or JSON, to `out`; what was left out, to `notes`.
///
/// # Errors
/// Those of writing.
pub fn list(
    snapshot: &Snapshot,
    json: bool,
    width: usize,
    out: &mut impl Write,
) -> Result<(), Fault> {
    if json {
        let tubes: Vec<_> = snapshot
            .tubes
            .values()
            .map(|tube| crate::json::tube(snapshot, tube))
            .collect();
        return Ok(writeln!(out, "{}", crate::json::line(&tubes.into()))?);
    }
    let mut rows = vec![HEADER.map(str::to_owned)];
    for (id, tube) in &snapshot.tubes {
        // A mark after the state, so that what is wrong is seen in any column order.
        let mark = if tube.findings().is_empty() { "" } else { "!" };
        let number = |key| cut(&tube.tip.shown(key).replace(' ', "\\x20"), 14);
        rows.push([
            snapshot.called(id.nock),
            snapshot.called(id.tip),
            tube.service(),
            id.tid.to_string(),
            format!("{}{mark}", tube.stage().word()),
            number("event-channel"),
            number("tx-ring-ref"),
            number("rx-ring-ref"),
        ]);
    }
    let mut widths = [0; HEADER.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let total: usize = widths.iter().sum::<usize>() + 2 * (HEADER.len() - 1);
    widths[ELASTIC] = widths[ELASTIC]
        .saturating_sub(total.saturating_sub(width))
        .max(ELASTIC_MIN.min(widths[ELASTIC]));
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{:width$}", cut(cell, width)))
            .collect();
        writeln!(out, "{}", cut(cells.join("  ").trim_end(), width))?;
    }
    Ok(())
}
