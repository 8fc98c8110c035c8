//! The state of a link: flags that are only ever set, each reported to the connection once.

use crate::error::LinkError;
use std::sync::atomic::{AtomicU32, Ordering};

/// Something that can happen to a link, at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Event {
    /// The peer has finished writing. Its data may still be in the ring.
    Fin = 1 << 0,
    /// The peer has finished or is gone, and the owner has taken all its data.
    Drained = 1 << 1,
    /// The peer's end is gone: its process died, or it released the pages.
    Gone = 1 << 2,
    /// The peer wrote an impossible value. Nothing is read or written any more.
    Violated = 1 << 3,
    /// The owner knows that nothing more will come: it got an end message, or its receive call
    /// failed.
    OwnerTold = 1 << 4,
}

/// The order in which events are reported.
const ORDER: [Event; 5] = [
    Event::Fin,
    Event::Gone,
    Event::Violated,
    Event::Drained,
    Event::OwnerTold,
];
const EVENTS: u32 = 0x1F;
/// The "reported" bit of an event lies this far above its "happened" bit.
const REPORTED: u32 = 16;
/// Why the peer is gone, if something else than its absence says so.
const DOMAIN: u32 = 1 << 8;
const SUSPENDED: u32 = 1 << 9;
/// Events can be reported.
const STARTED: u32 = 1 << 31;

/// The flags of one link, for any thread to set and see.
#[derive(Debug, Default)]
pub(crate) struct Status(AtomicU32);

/// The flags as they were at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags(u32);

/// What an empty ring means to its reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// If the peer has finished.
    pub(crate) finished: LinkError,
    /// If it has not: why nothing more will come, if it is gone.
    pub(crate) gone: Option<LinkError>,
}

impl Flags {
    /// Whether `event` has happened.
    pub(crate) fn has(self, event: Event) -> bool {
        self.0 & event as u32 != 0
    }

    /// Whether nothing more will come from the peer than what is in the ring.
    pub(crate) fn ends(self) -> bool {
        self.has(Event::Fin) || self.has(Event::Gone)
    }

    /// What broke the link, if anything did. A peer that leaves after it has finished breaks
    /// nothing, unless it did so because of our suspension.
    pub(crate) fn fault(self) -> Option<LinkError> {
        if self.has(Event::Violated) {
            Some(LinkError::Protocol)
        } else if self.has(Event::Fin) {
            Some(self.end().finished).filter(|why| *why == LinkError::Suspended)
        } else {
            self.end().gone
        }
    }

    /// What an empty ring means.
    pub(crate) fn end(self) -> End {
        let suspended = self.0 & SUSPENDED != 0;
        let gone = match self.0 & DOMAIN {
            _ if suspended => LinkError::Suspended,
            0 => LinkError::PeerDown,
            _ => LinkError::DomainGone,
        };
        End {
            finished: match suspended {
                true => LinkError::Suspended,
                false => LinkError::Closed,
            },
            gone: self.has(Event::Gone).then_some(gone),
        }
    }

    /// Fails if nothing can be sent any more.
    pub(crate) fn may_send(self) -> Result<(), LinkError> {
        match self.fault() {
            Some(fault) => Err(fault),
            None if self.has(Event::Gone) => Err(LinkError::Closed),
            None => Ok(()),
        }
    }

    /// Whether the link is started and nothing has happened to it.
    #[inline]
    pub(crate) fn is_undisturbed(self) -> bool {
        self.0 == STARTED
    }

    fn unreported(self) -> u32 {
        match self.0 & STARTED {
            0 => 0,
            _ => self.0 & !(self.0 >> REPORTED) & EVENTS,
        }
    }
}

impl Status {
    /// Notes that `event` has happened.
    pub(crate) fn raise(&self, event: Event) {
        self.0.fetch_or(event as u32, Ordering::AcqRel);
    }

    /// Notes that the peer is gone, and why. The first reason stays.
    pub(crate) fn raise_gone(&self, why: LinkError) {
        let reason = match why {
            LinkError::DomainGone => DOMAIN,
            LinkError::Suspended => SUSPENDED,
            _ => 0,
        };
        self.unless_gone(Event::Gone as u32 | reason);
    }

    /// Notes that a suspension will be the reason of the end, unless the peer is gone already.
    pub(crate) fn suspend(&self) {
        self.unless_gone(SUSPENDED);
    }

    fn unless_gone(&self, bits: u32) {
        let note = |flags: u32| (flags & Event::Gone as u32 == 0).then_some(flags | bits);
        _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, note);
    }

    /// From here on events can be reported; earlier ones have been kept.
    pub(crate) fn start(&self) {
        self.0.fetch_or(STARTED, Ordering::AcqRel);
    }

    /// The flags now.
    pub(crate) fn now(&self) -> Flags {
        Flags(self.0.load(Ordering::Acquire))
    }

    /// Whether there are events to report. One load, for the hot paths.
    pub(crate) fn has_unreported(&self) -> bool {
        self.now().unreported() != 0
    }

    /// The events not yet reported, in their order, for the caller to report: each is returned
    /// once.
    pub(crate) fn take_unreported(&self) -> impl Iterator<Item = Event> {
        let report = |flags: u32| match Flags(flags).unreported() {
            0 => None,
            unreported => Some(flags | unreported << REPORTED),
        };
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, report);
        let unreported = before.map_or(0, |flags| Flags(flags).unreported());
        ORDER
            .into_iter()
            .filter(move |event| unreported & *event as u32 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_reported_once() {
        let status = Status::default();
        status.start();
        assert!(!status.has_unreported());
        assert_eq!(status.take_unreported().count(), 0);
        status.raise(Event::Drained);
        status.raise(Event::Fin);
        status.raise(Event::Fin);
        assert!(status.has_unreported() && status.now().ends() && !status.now().has(Event::Gone));
        assert_eq!(
            status.take_unreported().collect::<Vec<_>>(),
            [Event::Fin, Event::Drained]
        );
        status.raise(Event::Fin);
        assert!(!status.has_unreported());
        status.raise(Event::Gone);
        assert_eq!(status.take_unreported().collect::<Vec<_>>(), [Event::Gone]);
        assert_eq!(status.take_unreported().count(), 0);
    }

    #[test]
    fn events_are_kept_until_the_start() {
        let status = Status::default();
        status.raise(Event::Gone);
        assert!(!status.has_unreported());
        assert_eq!(status.take_unreported().count(), 0);
        status.start();
        assert_eq!(status.take_unreported().collect::<Vec<_>>(), [Event::Gone]);
    }

    #[test]
    fn only_a_peer_that_leaves_without_finishing_breaks_the_link() {
        let status = Status::default();
        assert_eq!(status.now().fault(), None);
        status.raise(Event::Gone);
        assert_eq!(status.now().fault(), Some(LinkError::PeerDown));
        status.raise(Event::Fin);
        assert_eq!(status.now().fault(), None);
        status.raise(Event::Violated);
        assert_eq!(status.now().fault(), Some(LinkError::Protocol));
    }

    #[test]
    fn the_first_reason_stays() {
        for (first, then) in [
            (LinkError::PeerDown, LinkError::DomainGone),
            (LinkError::DomainGone, LinkError::Suspended),
            (LinkError::Suspended, LinkError::DomainGone),
        ] {
            let status = Status::default();
            status.start();
            status.raise_gone(first);
            assert_eq!(status.take_unreported().collect::<Vec<_>>(), [Event::Gone]);
            status.raise_gone(then);
            assert_eq!(status.now().end().gone, Some(first));
            assert_eq!(status.now().fault(), Some(first));
            assert_eq!(status.take_unreported().count(), 0);
        }
    }

    #[test]
    fn two_threads_never_report_the_same_event() {
        for _ in 0..200 {
            let status = Status::default();
            status.start();
            status.raise(Event::Gone);
            let reported: usize = std::thread::scope(|scope| {
                let all = [0, 1].map(|_| scope.spawn(|| status.take_unreported().count()));
                all.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(reported, 1);
        }
    }
}
