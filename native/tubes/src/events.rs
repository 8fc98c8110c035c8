//! What happens to tubes, told from one look at them to the next. Pure: it knows no store and no
//! clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::path::Id;
use crate::tube::{Stage, Tube};

/// A half whose other half's domain does not exist is taken away by a living VM well before this.
const GONE: Duration = Duration::from_secs(2);

/// The same for a half that is alone for another reason: longer than a VM drains and cleans up.
const ALONE: Duration = Duration::from_secs(10);

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Was there when we began to look.
    Present,
    /// Somebody asks for it.
    Opened,
    /// Both sides say so.
    Connected,
    /// One side closes, or has refused.
    Closing,
    /// It is no more.
    Closed,
    /// One half stays behind.
    Stale,
}

impl What {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            What::Present => "present",
            What::Opened => "opened",
            What::Connected => "connected",
            What::Closing => "closing",
            What::Closed => "closed",
            What::Stale => "stale",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub what: What,
    /// To which tube.
    pub id: Id,
    /// Its service, fit to be shown.
    pub service: String,
    /// Where it stands now, and what is wrong; empty if nothing is left of it.
    pub now: String,
}

struct Known {
    nonce: Option<String>,
    service: String,
    reached: What,
    alone: Option<Instant>,
    stale: bool,
    gone: bool,
}

/// What is known of all tubes.
#[derive(Default)]
pub struct Events {
    known: BTreeMap<Id, Known>,
}

impl Events {
    /// All tubes that are known, so that their absence can be noticed.
    pub fn ids(&self) -> Vec<Id> {
        self.known.keys().copied().collect()
    }

    /// Takes note of a tube as it is now.
    pub fn look(&mut self, tube: &Tube, now: Instant, first: bool) -> Vec<Event> {
        let mut events = Vec::new();
        let id = tube.id;
        let nonce = tube.nonce().map(str::to_owned);
        if let Some(known) = self.known.get(&id)
            && nonce.is_some()
            && known.nonce.is_some()
            && known.nonce != nonce
        {
            // Another attempt under the same number: the old tube is no more.
            let old = self.known.remove(&id).expect("just seen");
            events.extend(close(id, &old, "another one takes its place".into()));
        }
        if tube.absent() {
            if let Some(old) = self.known.remove(&id) {
                let why = match tube.gone.first() {
                    Some(domid) => format!("domain {domid} is gone"),
                    None if old.reached == What::Closing => "both sides have gone".into(),
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
            reached: What::Present,
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
            Stage::Connected => What::Connected,
            Stage::Closing | Stage::Refused => What::Closing,
            Stage::Closed => What::Closed,
            Stage::OneSided | Stage::Stale | Stage::Broken => known.reached.max(What::Opened),
            _ => What::Opened,
        };
        let word = match tube.tip.get("error").filter(|_| stage == Stage::Refused) {
            Some(error) => format!("refused: {}", crate::text::value(error)),
            None => stage.word().to_owned(),
        };
        let mut event = |what| {
            events.push(Event {
                what,
                id,
                service: known.service.clone(),
                now: word.clone(),
            });
        };
        if fresh && first {
            event(What::Present);
            known.reached = level;
        } else {
            // Steps that were too quick to be seen were taken nevertheless.
            for what in [What::Opened, What::Connected, What::Closing, What::Closed] {
                let taken = what <= level && known.reached < what;
                // A refused tube was never connected.
                if taken && !(what == What::Connected && level > what) {
                    event(what);
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

    /// Tells of what has been alone for too long.
    pub fn tick(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        for (id, known) in &mut self.known {
            let limit = if known.gone { GONE } else { ALONE };
            let over = known
                .alone
                .is_some_and(|since| now.duration_since(since) >= limit);
            if over && !known.stale && known.reached < What::Closed {
                known.stale = true;
                let why = if known.gone {
                    "the other domain does not exist"
                } else {
                    "one half only"
                };
                events.push(Event {
                    what: What::Stale,
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
    (old.reached < What::Closed).then(|| Event {
        what: What::Closed,
        id,
        service: old.service.clone(),
        now: why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tube::{Half, Nodes, Value};

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
        events.into_iter().map(|event| event.what.word()).collect()
    }

    #[test]
    fn a_life() {
        let (mut events, now) = (Events::default(), Instant::now());
        let mut look = |nock, tip| words(events.look(&tube(nock, tip), now, false));
        assert_eq!(look(half("a", "2"), Half::Missing), ["opened"]);
        assert!(look(half("a", "2"), half("a", "3")).is_empty());
        assert_eq!(look(half("a", "4"), half("a", "4")), ["connected"]);
        assert!(look(half("a", "4"), half("a", "4")).is_empty());
        assert_eq!(look(half("a", "5"), half("a", "4")), ["closing"]);
        assert_eq!(look(half("a", "6"), half("a", "6")), ["closed"]);
        assert!(look(Half::Missing, Half::Missing).is_empty());
    }

    #[test]
    fn what_was_too_quick_and_another_attempt() {
        let (mut events, now) = (Events::default(), Instant::now());
        let mut look = |nock, tip| words(events.look(&tube(nock, tip), now, false));
        assert_eq!(
            look(half("a", "4"), half("a", "4")),
            ["opened", "connected"]
        );
        assert_eq!(look(half("b", "2"), half("a", "4")), ["closed", "opened"]);
        assert_eq!(look(Half::Missing, Half::Missing), ["closed"]);
    }

    #[test]
    fn a_half_left_alone_is_stale_once() {
        let (mut events, begin) = (Events::default(), Instant::now());
        let alone = tube(half("a", "4"), Half::Missing);
        let both = tube(half("a", "4"), half("a", "4"));
        assert_eq!(words(events.look(&both, begin, true)), ["present"]);
        assert!(events.look(&alone, begin, false).is_empty());
        assert!(events.tick(begin + ALONE / 2).is_empty());
        assert_eq!(words(events.tick(begin + ALONE)), ["stale"]);
        assert!(events.tick(begin + 2 * ALONE).is_empty());
        let absent = tube(Half::Missing, Half::Missing);
        assert_eq!(words(events.look(&absent, begin, false)), ["closed"]);
    }
}
