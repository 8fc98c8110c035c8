//! A row of the table of `tubes top`.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::snapshot::Snapshot;
use crate::stats::meters::Traffic;
use crate::tube::Tube;

/// Number of seconds in a history.
const HISTORY: usize = 60;

/// The cells of one tube, escaped.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Its nock, by number and name.
    pub nock: String,
    /// Its tip.
    pub tip: String,
    /// Its service.
    pub service: String,
    /// Its number.
    pub tid: String,
    /// Its stage, marked if it has findings.
    pub state: String,
    /// Whether it has findings.
    pub wrong: bool,
    /// Sizes of its rings.
    pub ring: String,
    /// Its age.
    pub age: Option<Duration>,
    /// Its traffic, if its VMs publish counters.
    pub traffic: Option<Traffic>,
    /// Bytes per second, oldest first.
    pub history: VecDeque<f64>,
}

impl Row {
    /// The row of a tube at `time`, continuing the history of its previous row.
    pub fn new(
        snapshot: &Snapshot,
        tube: &Tube,
        traffic: Option<Traffic>,
        time: SystemTime,
        mut history: VecDeque<f64>,
    ) -> Row {
        let wrong = !tube.findings().is_empty();
        remember(&mut history, traffic.map_or(0.0, |traffic| traffic.bytes()));
        Row {
            nock: snapshot.label(tube.id.nock),
            tip: snapshot.label(tube.id.tip),
            service: tube.service(),
            tid: tube.id.tid.to_string(),
            state: format!("{}{}", tube.stage().word(), if wrong { "!" } else { "" }),
            wrong,
            ring: tube.rings(),
            age: tube.age(time),
            traffic,
            history,
        }
    }
}

/// Appends to a history of limited length.
pub fn remember(history: &mut VecDeque<f64>, now: f64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(now);
}
