//! What has become of a link: flags that are only ever set, each reported to the connection once.

use crate::flow::LinkError;
use std::sync::atomic::{AtomicU32, Ordering};

/// One thing that can happen to a link once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Event {
    /// The peer has finished writing. It may be long before its data is taken.
    Fin = 1 << 0,
    /// The peer has finished or gone, and the owner has taken all that it wrote.
    Drained = 1 << 1,
    /// The peer's end is gone: its process died, or it let go of the pages.
    Gone = 1 << 2,
    /// The peer wrote what no peer may write. Nothing is read or written any more.
    Violated = 1 << 3,
    /// The owner knows that nothing more will come: an active one was told, a passive one asked.
    OwnerTold = 1 << 4,
}

const REPORTED: [Event; 5] = [
    Event::Fin,
    Event::Gone,
    Event::Violated,
    Event::Drained,
    Event::OwnerTold,
];
const EVENTS: u32 = 0x1F;
/// The bit that says "reported" lies this far above the bit that says "happened".
const TOLD: u32 = 16;
/// Why the peer has gone, if that is known better than by its absence.
const DOMAIN: u32 = 1 << 8;
const SUSPENDED: u32 = 1 << 9;
/// Somebody is there to report to.
const HEARD: u32 = 1 << 31;

/// The flags of one link, for any thread to set and see.
#[derive(Debug, Default)]
pub(crate) struct Status(AtomicU32);

/// The flags as they were at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags(u32);

/// What an empty ring means to who asks for more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// When the peer had finished.
    pub finished: LinkError,
    /// When it had not: why it will not any more, if it has gone.
    pub gone: Option<LinkError>,
}

impl Flags {
    /// Has it happened?
    pub(crate) fn has(self, event: Event) -> bool {
        self.0 & event as u32 != 0
    }

    /// Will nothing more come from the peer than what is in the ring?
    pub(crate) fn ends(self) -> bool {
        self.has(Event::Fin) || self.has(Event::Gone)
    }

    /// What broke the link, if anything did. A peer that goes after it has finished breaks nothing, unless
    /// that was in answer to our suspension.
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

    /// May something be sent?
    pub(crate) fn may_send(self) -> Result<(), LinkError> {
        match self.fault() {
            Some(fault) => Err(fault),
            None if self.has(Event::Gone) => Err(LinkError::Closed),
            None => Ok(()),
        }
    }

    /// Is there nothing to be said of it but that data flows?
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        self.0 == HEARD
    }

    fn untold(self) -> u32 {
        match self.0 & HEARD {
            0 => 0,
            _ => self.0 & !(self.0 >> TOLD) & EVENTS,
        }
    }
}

impl Status {
    /// Notes that `event` has happened.
    pub(crate) fn raise(&self, event: Event) {
        self.0.fetch_or(event as u32, Ordering::AcqRel);
    }

    /// Notes that the peer has gone, and why. The first reason stays.
    pub(crate) fn raise_gone(&self, why: LinkError) {
        let reason = match why {
            LinkError::DomainGone => DOMAIN,
            LinkError::Suspended => SUSPENDED,
            _ => 0,
        };
        self.unless_gone(Event::Gone as u32 | reason);
    }

    /// Notes that the end to come is because of a suspension, unless the peer has gone before.
    pub(crate) fn suspend(&self) {
        self.unless_gone(SUSPENDED);
    }

    fn unless_gone(&self, bits: u32) {
        let note = |flags: u32| (flags & Event::Gone as u32 == 0).then_some(flags | bits);
        _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, note);
    }

    /// From here on there is somebody to report to; what has happened before is kept for them.
    pub(crate) fn listen(&self) {
        self.0.fetch_or(HEARD, Ordering::AcqRel);
    }

    /// The flags now.
    pub(crate) fn now(&self) -> Flags {
        Flags(self.0.load(Ordering::Acquire))
    }

    /// Is there anything to report? One load, for the hot paths.
    pub(crate) fn is_untold(&self) -> bool {
        self.now().untold() != 0
    }

    /// What has happened and was not reported yet, in the order in which it makes sense. Whoever gets an
    /// event here is the one to report it: nobody gets it again.
    pub(crate) fn take(&self) -> impl Iterator<Item = Event> {
        let tell = |flags: u32| match Flags(flags).untold() {
            0 => None,
            untold => Some(flags | untold << TOLD),
        };
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, tell);
        let untold = before.map_or(0, |flags| Flags(flags).untold());
        REPORTED
            .into_iter()
            .filter(move |event| untold & *event as u32 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_reported_once() {
        let status = Status::default();
        status.listen();
        assert!(!status.is_untold());
        assert_eq!(status.take().count(), 0);
        status.raise(Event::Drained);
        status.raise(Event::Fin);
        status.raise(Event::Fin);
        assert!(status.is_untold() && status.now().ends() && !status.now().has(Event::Gone));
        assert_eq!(
            status.take().collect::<Vec<_>>(),
            [Event::Fin, Event::Drained]
        );
        status.raise(Event::Fin);
        assert!(!status.is_untold());
        status.raise(Event::Gone);
        assert_eq!(status.take().collect::<Vec<_>>(), [Event::Gone]);
        assert_eq!(status.take().count(), 0);
    }

    #[test]
    fn events_wait_for_somebody_to_hear_them() {
        let status = Status::default();
        status.raise(Event::Gone);
        assert!(!status.is_untold());
        assert_eq!(status.take().count(), 0);
        status.listen();
        assert_eq!(status.take().collect::<Vec<_>>(), [Event::Gone]);
    }

    #[test]
    fn only_a_peer_that_goes_without_an_end_breaks_the_link() {
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
    fn the_first_reason_of_the_peers_end_stays() {
        for (first, then) in [
            (LinkError::PeerDown, LinkError::DomainGone),
            (LinkError::DomainGone, LinkError::Suspended),
            (LinkError::Suspended, LinkError::DomainGone),
        ] {
            let status = Status::default();
            status.listen();
            status.raise_gone(first);
            assert_eq!(status.take().collect::<Vec<_>>(), [Event::Gone]);
            status.raise_gone(then);
            assert_eq!(status.now().end().gone, Some(first));
            assert_eq!(status.now().fault(), Some(first));
            assert_eq!(status.take().count(), 0);
        }
    }

    #[test]
    fn two_threads_never_both_report() {
        for _ in 0..200 {
            let status = Status::default();
            status.listen();
            status.raise(Event::Gone);
            let told: usize = std::thread::scope(|scope| {
                let all = [0, 1].map(|_| scope.spawn(|| status.take().count()));
                all.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(told, 1);
        }
    }
}
