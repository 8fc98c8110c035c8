//! Counters that the VMs show while somebody looks, and the rates that follow from them.
//!
//! What a VM says of itself is only what it says: the numbers are taken as numbers, whatever they are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::path::{Id, Role};
use crate::snapshot::{Snapshot, tolerate};
use crate::store::{Error, Store};
use crate::tube::{Half, Stage};

/// A VM writes once a second; one that has not for so long does not any more.
const SILENT: Duration = Duration::from_secs(4);

/// No VM's line is longer.
const LINE_MAX: usize = 512;

/// The names of a line. Others may follow in later versions.
pub const NAMES: [&str; 11] = [
    "time",
    "sent",
    "sent-bytes",
    "send-pending",
    "received",
    "received-bytes",
    "receive-pending",
    "full-waits",
    "empty-waits",
    "bells",
    "bells-spared",
];

/// Those which say how things stand, and may become less.
const LEVELS: [&str; 2] = ["send-pending", "receive-pending"];

/// The counters of one end at one moment, in the order of [`NAMES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample([u64; NAMES.len()]);

impl Sample {
    /// Reads a line. Strict in what it knows: each name once, decimal, no sign.
    pub fn parse(line: &str) -> Option<Sample> {
        if line.len() > LINE_MAX {
            return None;
        }
        let mut found = [None; NAMES.len()];
        for word in line.split(' ') {
            let (name, text) = word.split_once('=')?;
            if let Some(at) = NAMES.iter().position(|known| *known == name) {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                let number = text.parse().ok().filter(|_| digits)?;
                if found[at].replace(number).is_some() {
                    return None;
                }
            }
        }
        let mut numbers = [0; NAMES.len()];
        for (number, found) in numbers.iter_mut().zip(found) {
            *number = found?;
        }
        Some(Sample(numbers))
    }

    /// One of its numbers.
    pub fn get(&self, name: &str) -> u64 {
        let at = NAMES.iter().position(|known| *known == name);
        at.map_or(0, |at| self.0[at])
    }

    /// How much of everything there was per second since an earlier sample. None if that was another
    /// tube's: a counter never becomes less.
    fn since(&self, earlier: &Sample) -> Option<Rates> {
        let ms = self.0[0].checked_sub(earlier.0[0]).filter(|ms| *ms > 0)?;
        let mut rates = [0.0; NAMES.len()];
        for (at, name) in NAMES.iter().enumerate() {
            rates[at] = match self.0[at].checked_sub(earlier.0[at]) {
                Some(more) => more as f64 * 1000.0 / ms as f64,
                None if LEVELS.contains(name) => 0.0,
                None => return None,
            };
        }
        Some(Rates(rates))
    }
}

/// Per second, in the order of [`NAMES`].
#[derive(Debug, Clone, PartialEq)]
struct Rates([f64; NAMES.len()]);

impl Rates {
    fn get(&self, name: &str) -> f64 {
        let at = NAMES.iter().position(|known| *known == name);
        at.map_or(0.0, |at| self.0[at])
    }
}

/// What goes through a tube per second. `forth` is from nock to tip.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Traffic {
    /// Messages from nock to tip.
    pub forth: f64,
    /// Their bytes.
    pub forth_bytes: f64,
    /// Messages from tip to nock.
    pub back: f64,
    /// Their bytes.
    pub back_bytes: f64,
    /// Times that a sender found no room, at either end that shows it.
    pub full_waits: f64,
    /// Wake-ups, the same.
    pub bells: f64,
}

impl Traffic {
    /// Messages both ways.
    pub fn messages(&self) -> f64 {
        self.forth + self.back
    }

    /// Bytes both ways.
    pub fn bytes(&self) -> f64 {
        self.forth_bytes + self.back_bytes
    }
}

/// One end, from one look to the next.
#[derive(Debug, Clone)]
struct End {
    last: Sample,
    rates: Option<Rates>,
    heard: Instant,
}

/// All ends of all tubes.
#[derive(Debug, Clone, Default)]
pub struct Meters {
    ends: BTreeMap<(Id, Role), End>,
}

impl Meters {
    /// Reads what all tubes of a snapshot show.
    ///
    /// # Errors
    /// The store is lost.
    pub fn read(&mut self, store: &Store, snapshot: &Snapshot, now: Instant) -> Result<(), Error> {
        self.ends
            .retain(|(id, _), _| snapshot.tubes.contains_key(id));
        for (id, tube) in &snapshot.tubes {
            for role in [Role::Nock, Role::Tip] {
                if let Half::Here(..) = tube.half(role) {
                    let line = tolerate(store.read(&id.stats(role)).map(Some))?;
                    self.note(*id, role, line.as_deref().and_then(Sample::parse), now);
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, id: Id, role: Role, sample: Option<Sample>, now: Instant) {
        let known = self.ends.get_mut(&(id, role));
        match (sample, known) {
            (Some(sample), None) => {
                let (last, rates, heard) = (sample, None, now);
                self.ends.insert((id, role), End { last, rates, heard });
            }
            (Some(sample), Some(end)) if sample != end.last => {
                *end = End {
                    rates: sample.since(&end.last),
                    last: sample,
                    heard: now,
                };
            }
            (_, Some(end)) if now.duration_since(end.heard) >= SILENT => {
                self.ends.remove(&(id, role));
            }
            _ => {}
        }
    }

    /// The counters of one end, if it shows them.
    pub fn sample(&self, id: Id, role: Role) -> Option<&Sample> {
        self.ends.get(&(id, role)).map(|end| &end.last)
    }

    /// What goes through a tube. Of each direction its sender is believed, else its receiver.
    pub fn traffic(&self, id: Id) -> Option<Traffic> {
        let end = |role| self.ends.get(&(id, role))?.rates.as_ref();
        let (nock, tip) = (end(Role::Nock), end(Role::Tip));
        let some = nock.or(tip)?;
        let rate = |sender: Option<&Rates>, sent, received| match sender {
            Some(rates) => rates.get(sent),
            None => some.get(received),
        };
        let both = |name| {
            [nock, tip]
                .iter()
                .flatten()
                .map(|rates| rates.get(name))
                .sum()
        };
        Some(Traffic {
            forth: rate(nock, "sent", "received"),
            forth_bytes: rate(nock, "sent-bytes", "received-bytes"),
            back: rate(tip, "sent", "received"),
            back_bytes: rate(tip, "sent-bytes", "received-bytes"),
            full_waits: both("full-waits"),
            bells: both("bells"),
        })
    }

    /// Whether there are rates of all tubes that can have some.
    pub fn complete(&self, snapshot: &Snapshot) -> bool {
        let mut live = snapshot
            .tubes
            .values()
            .filter(|tube| tube.stage() == Stage::Connected);
        live.all(|tube| self.traffic(tube.id).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Id = Id {
        nock: 7,
        tip: 5,
        tid: 0,
    };

    fn sample(time: u64, sent: u64, received: u64) -> Option<Sample> {
        let line = format!(
            "time={time} sent={sent} sent-bytes={} send-pending=8 received={received} \
             received-bytes={} receive-pending=16 full-waits=0 empty-waits=0 bells={sent} \
             bells-spared=0 from-the-future=1",
            sent * 10,
            received * 100
        );
        Sample::parse(&line)
    }

    #[test]
    fn lines() {
        assert_eq!(sample(1, 2, 3).unwrap().get("received-bytes"), 300);
        let good = sample(1, 2, 3).map(|_| "time=1 sent=2").unwrap();
        let huge = "x".repeat(600);
        let twice = "time=1 time=2 sent=1 sent-bytes=1 send-pending=1 received=1 received-bytes=1 \
                     receive-pending=1 full-waits=1 empty-waits=1 bells=1 bells-spared=1";
        for bad in [
            good, "", "time", "time=-1", "time=+1", "\x1b[2J", &huge, twice,
        ] {
            assert_eq!(Sample::parse(bad), None, "{bad}");
        }
        let signed = twice.replacen("time=1 time=2", "time=+1", 1);
        assert_eq!(Sample::parse(&signed), None);
        assert!(Sample::parse(&twice.replacen("time=1 ", "", 1)).is_some());
    }

    #[test]
    fn rates_of_both_ends_and_of_one() {
        let (mut meters, now) = (Meters::default(), Instant::now());
        let mut note = |role, sample| {
            meters.note(ID, role, sample, now);
            meters.traffic(ID)
        };
        assert_eq!(note(Role::Nock, sample(1000, 0, 0)), None);
        let alone = note(Role::Nock, sample(1500, 100, 50)).unwrap();
        assert_eq!((alone.forth, alone.back), (200.0, 100.0));
        assert_eq!((alone.forth_bytes, alone.back_bytes), (2000.0, 10_000.0));
        assert_eq!(alone.bells, 200.0);
        // The tip's own word on what it sends, when there is one.
        note(Role::Tip, sample(9_000_000, 1000, 0));
        let both = note(Role::Tip, sample(9_001_000, 1070, 7)).unwrap();
        assert_eq!((both.forth, both.back), (200.0, 70.0));
        assert_eq!(both.bells, 270.0);
        assert_eq!((both.messages(), both.bytes()), (270.0, 2700.0));
    }

    #[test]
    fn another_tube_of_that_number_and_a_vm_that_falls_silent() {
        let (mut meters, now) = (Meters::default(), Instant::now());
        for (time, sent) in [(1000, 50), (2000, 60)] {
            meters.note(ID, Role::Nock, sample(time, sent, 0), now);
        }
        assert!(meters.traffic(ID).is_some());
        meters.note(ID, Role::Nock, sample(3000, 2, 0), now);
        assert_eq!(meters.traffic(ID), None);
        meters.note(ID, Role::Nock, sample(4000, 3, 0), now);
        assert_eq!(meters.traffic(ID).unwrap().forth, 1.0);
        // The same line again, or none: nothing new, and after a while nothing at all.
        meters.note(ID, Role::Nock, sample(4000, 3, 0), now + SILENT / 2);
        assert!(meters.traffic(ID).is_some());
        meters.note(ID, Role::Nock, None, now + SILENT);
        assert_eq!(meters.sample(ID, Role::Nock), None);
    }
}
