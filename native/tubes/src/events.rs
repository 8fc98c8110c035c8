//! Derives events from successive observations of tubes. It is pure: it uses no store and no clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::path::Id;
use crate::tube::Tube;
use crate::tube::stage::Stage;

/// How long a half may remain when the peer's domain is gone. A live VM removes its half much
/// sooner.
const GONE: Duration = Duration::from_secs(2);

/// How long a half may be alone for another reason. A VM needs less time to drain and clean up.
const ALONE: Duration = Duration::from_secs(10);

/// The kinds of events, in the order in which a tube passes through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// It existed when the program started.
    Present,
    /// A nock requests it.
    Opened,
    /// Both sides are connected.
    Connected,
    /// One side closes it, or the tip refuses it.
    Closing,
    /// Both sides have closed it, or its nodes are gone.
    Closed,
    /// Only one half remains, and nobody removes it.
    Stale,
}

impl EventKind {
    /// Its name in the output.
    pub fn word(self) -> &'static str {
        match self {
            EventKind::Present => "present",
            EventKind::Opened => "opened",
            EventKind::Connected => "connected",
            EventKind::Closing => "closing",
            EventKind::Closed => "closed",
            EventKind::Stale => "stale",
        }
    }
}

/// An event of a tube.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The tube.
    pub id: Id,
    /// Its service, escaped.
    pub service: String,
    /// Its current stage, or the reason for the event.
    pub now: String,
}

struct Known {
    nonce: Option<String>,
    service: String,
    reached: EventKind,
    alone: Option<Instant>,
    stale: bool,
    gone: bool,
}

/// Tracks all tubes.
#[derive(Default)]
pub struct Tracker {
    known: BTreeMap<Id, Known>,
}

impl Tracker {
    /// All known tubes, so that the caller can notice when one is missing.
    pub fn ids(&self) -> Vec<Id> {
        self.known.keys().copied().collect()
    }

    /// Compares a tube with what is known of it. `first` is true for the initial state.
    pub fn observe(&mut self, tube: &Tube, now: Instant, first: bool) -> Vec<Event> {
        let mut events = Vec::new();
        let id = tube.id;
        let nonce = tube.nonce().map(str::to_owned);
        if let Some(known) = self.known.get(&id)
            && nonce.is_some()
            && known.nonce.is_some()
            && known.nonce != nonce
        {
            // A new attempt reuses the number, so the old tube is gone.
            let old = self.known.remove(&id).expect("just found");
            events.extend(close(id, &old, "another one takes its place".into()));
        }
        if tube.absent() {
            if let Some(old) = self.known.remove(&id) {
                let why = match tube.gone.first() {
                    Some(domid) => format!("domain {domid} is gone"),
                    None if old.reached == EventKind::Closing => "both sides have gone".into(),
                    None => "its nodes are gone".into(),
                };
                events.extend(close(id, &old, why));
            }
            return events;
        }
        let fresh = !self.known.contains_key(&id);
        let known = self.known.entry(id).or_insert_with(|| Known {
            nonce: None,
            service: "-".into(),
            reached: EventKind::Present,
            alone: None,
            stale: false,
            gone: false,
        });
        known.nonce = nonce.or(known.nonce.take());
        if tube.nock.get("service").is_some() {
            known.service = tube.service();
        }
        let stage = tube.stage();
        let level = match stage {
            Stage::Connected => EventKind::Connected,
            Stage::Closing | Stage::Refused => EventKind::Closing,
            Stage::Closed => EventKind::Closed,
            Stage::OneSided | Stage::Stale | Stage::Broken => known.reached.max(EventKind::Opened),
            _ => EventKind::Opened,
        };
        let word = match tube.tip.get("error").filter(|_| stage == Stage::Refused) {
            Some(error) => format!("refused: {}", crate::text::value(error)),
            None => stage.word().to_owned(),
        };
        let mut event = |kind| {
            events.push(Event {
                kind,
                id,
                service: known.service.clone(),
                now: word.clone(),
            });
        };
        if fresh && first {
            event(EventKind::Present);
            known.reached = level;
        } else {
            // Report steps that passed between two observations too.
            for kind in [
                EventKind::Opened,
                EventKind::Connected,
                EventKind::Closing,
                EventKind::Closed,
            ] {
                let passed = kind <= level && known.reached < kind;
                // A refused tube was never connected.
                if passed && !(kind == EventKind::Connected && level > kind) {
                    event(kind);
                }
            }
            known.reached = known.reached.max(level);
        }
        known.gone = stage == Stage::Stale;
        known.alone = match stage {
            Stage::Stale | Stage::OneSided => known.alone.or(Some(now)),
            _ => None,
        };
        known.stale &= known.alone.is_some();
        events
    }

    /// Reports halves that have been alone for too long.
    pub fn tick(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        for (id, known) in &mut self.known {
            let limit = if known.gone { GONE } else { ALONE };
            let over = known
                .alone
                .is_some_and(|since| now.duration_since(since) >= limit);
            if over && !known.stale && known.reached < EventKind::Closed {
                known.stale = true;
                let why = if known.gone {
                    "the other domain does not exist"
                } else {
                    "one half only"
                };
                events.push(Event {
                    kind: EventKind::Stale,
                    id: *id,
                    service: known.service.clone(),
                    now: why.into(),
                });
            }
        }
        events
    }
}

fn close(id: Id, old: &Known, why: String) -> Option<Event> {
    (old.reached < EventKind::Closed).then(|| Event {
        kind: EventKind::Closed,
        id,
        service: old.service.clone(),
        now: why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tube::half::{Half, Nodes, Value};

    const ID: Id = Id {
        nock: 7,
        tip: 5,
        tid: 0,
    };

    fn half(nonce: &str, state: &str) -> Half {
        let mut nodes = Nodes::new();
        nodes.insert("nonce", Value::Text(nonce.into()));
        nodes.insert("state", Value::Text(state.into()));
        Half::Here(nodes, 0)
    }

    fn tube(nock: Half, tip: Half) -> Tube {
        Tube {
            id: ID,
            nock,
            tip,
            gone: Vec::new(),
        }
    }

    fn words(events: Vec<Event>) -> Vec<&'static str> {
        events.into_iter().map(|event| event.kind.word()).collect()
    }

    #[test]
    fn a_tube_from_open_to_close() {
        let (mut tracker, now) = (Tracker::default(), Instant::now());
        let mut observe = |nock, tip| words(tracker.observe(&tube(nock, tip), now, false));
        assert_eq!(observe(half("a", "2"), Half::Missing), ["opened"]);
        assert!(observe(half("a", "2"), half("a", "3")).is_empty());
        assert_eq!(observe(half("a", "4"), half("a", "4")), ["connected"]);
        assert!(observe(half("a", "4"), half("a", "4")).is_empty());
        assert_eq!(observe(half("a", "5"), half("a", "4")), ["closing"]);
        assert_eq!(observe(half("a", "6"), half("a", "6")), ["closed"]);
        assert!(observe(Half::Missing, Half::Missing).is_empty());
    }

    #[test]
    fn steps_between_observations_and_a_reused_number() {
        let (mut tracker, now) = (Tracker::default(), Instant::now());
        let mut observe = |nock, tip| words(tracker.observe(&tube(nock, tip), now, false));
        assert_eq!(
            observe(half("a", "4"), half("a", "4")),
            ["opened", "connected"]
        );
        assert_eq!(
            observe(half("b", "2"), half("a", "4")),
            ["closed", "opened"]
        );
        assert_eq!(observe(Half::Missing, Half::Missing), ["closed"]);
    }

    #[test]
    fn a_half_left_alone_is_stale_once() {
        let (mut tracker, begin) = (Tracker::default(), Instant::now());
        let alone = tube(half("a", "4"), Half::Missing);
        let both = tube(half("a", "4"), half("a", "4"));
        assert_eq!(words(tracker.observe(&both, begin, true)), ["present"]);
        assert!(tracker.observe(&alone, begin, false).is_empty());
        assert!(tracker.tick(begin + ALONE / 2).is_empty());
        assert_eq!(words(tracker.tick(begin + ALONE)), ["stale"]);
        assert!(tracker.tick(begin + 2 * ALONE).is_empty());
        let absent = tube(Half::Missing, Half::Missing);
        assert_eq!(words(tracker.observe(&absent, begin, false)), ["closed"]);
    }
}
