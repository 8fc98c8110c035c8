//! Rates of all tubes, from the samples that their ends publish.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::sample::{Rates, Sample};
use crate::path::{Id, Role};
use crate::snapshot::Snapshot;
use crate::store::{Store, StoreError, tolerate};
use crate::tube::half::Half;
use crate::tube::stage::Stage;

/// VMs publish once a second. After this long without a change, an end no longer publishes.
const SILENT: Duration = Duration::from_secs(4);

/// The traffic of a tube per second. `forth` is from nock to tip.
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
    /// Times that a sender found the ring full, summed over the ends that publish.
    pub full_waits: f64,
    /// Notifications sent, summed likewise.
    pub notifications: f64,
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

/// One end of a tube.
#[derive(Debug, Clone)]
struct End {
    last: Sample,
    rates: Option<Rates>,
    /// When `last` was first seen.
    changed: Instant,
}

/// The ends of all tubes.
#[derive(Debug, Clone, Default)]
pub struct Meters {
    ends: BTreeMap<(Id, Role), End>,
}

impl Meters {
    /// Reads the counters of all tubes of a snapshot.
    ///
    /// # Errors
    /// The connection to the store is lost.
    pub fn read(
        &mut self,
        store: &Store,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Result<(), StoreError> {
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
                let (last, rates, changed) = (sample, None, now);
                let end = End {
                    last,
                    rates,
                    changed,
                };
                self.ends.insert((id, role), end);
            }
            (Some(sample), Some(end)) if sample != end.last => {
                *end = End {
                    rates: sample.since(&end.last),
                    last: sample,
                    changed: now,
                };
            }
            (_, Some(end)) if now.duration_since(end.changed) >= SILENT => {
                self.ends.remove(&(id, role));
            }
            _ => {}
        }
    }

    /// The counters of one end, if it publishes them.
    pub fn sample(&self, id: Id, role: Role) -> Option<&Sample> {
        self.ends.get(&(id, role)).map(|end| &end.last)
    }

    /// The traffic of a tube. Each direction is counted by its sender, or else by its receiver.
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
            notifications: both("bells"),
        })
    }

    /// Whether the rates of all connected tubes are known.
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
             bells-spared=0",
            sent * 10,
            received * 100
        );
        Sample::parse(&line)
    }

    #[test]
    fn rates_from_one_end_and_from_both() {
        let (mut meters, now) = (Meters::default(), Instant::now());
        let mut note = |role, sample| {
            meters.note(ID, role, sample, now);
            meters.traffic(ID)
        };
        assert_eq!(note(Role::Nock, sample(1000, 0, 0)), None);
        let alone = note(Role::Nock, sample(1500, 100, 50)).unwrap();
        assert_eq!((alone.forth, alone.back), (200.0, 100.0));
        assert_eq!((alone.forth_bytes, alone.back_bytes), (2000.0, 10_000.0));
        assert_eq!(alone.notifications, 200.0);
        // What the tip sends is now counted by the tip.
        note(Role::Tip, sample(9_000_000, 1000, 0));
        let both = note(Role::Tip, sample(9_001_000, 1070, 7)).unwrap();
        assert_eq!((both.forth, both.back), (200.0, 70.0));
        assert_eq!(both.notifications, 270.0);
        assert_eq!((both.messages(), both.bytes()), (270.0, 2700.0));
    }

    #[test]
    fn rates_end_when_the_tube_is_replaced_or_its_vm_falls_silent() {
        let (mut meters, now) = (Meters::default(), Instant::now());
        for (time, sent) in [(1000, 50), (2000, 60)] {
            meters.note(ID, Role::Nock, sample(time, sent, 0), now);
        }
        assert!(meters.traffic(ID).is_some());
        meters.note(ID, Role::Nock, sample(3000, 2, 0), now);
        assert_eq!(meters.traffic(ID), None);
        meters.note(ID, Role::Nock, sample(4000, 3, 0), now);
        assert_eq!(meters.traffic(ID).unwrap().forth, 1.0);
        // An unchanged or missing line keeps the rates, but only for so long.
        meters.note(ID, Role::Nock, sample(4000, 3, 0), now + SILENT / 2);
        assert!(meters.traffic(ID).is_some());
        meters.note(ID, Role::Nock, None, now + SILENT);
        assert_eq!(meters.sample(ID, Role::Nock), None);
    }
}
