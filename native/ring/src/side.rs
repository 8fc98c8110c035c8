//! What both ends of a ring share: the pages, the index announced to the peer, the decision whether
//! to notify it, and the counters.

use crate::layout::{COUNTERS, EVENT_INDEX, INDEX, RECORD_ALIGN, never};
use crate::memory::Ordering::{Relaxed, Release};
use crate::memory::announce_then_look;
use crate::{ControlPage, DataArea, Violation};

/// The outcome of preparing to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "if `notify`, the peer sleeps and must be notified; if `ready`, do not sleep"]
pub struct Armed {
    /// There is something to do already: do not sleep, try again. The event index has been
    /// withdrawn.
    pub ready: bool,
    /// The peer waits for what this call published: notify it.
    pub notify: bool,
}

/// Most bytes moved before an awake peer can see them: big enough for memcpy speed, small enough
/// that one end copies while the other does.
pub(crate) const STRIDE: u32 = 64 << 10;

/// [`STRIDE`], or a quarter of a small ring.
pub(crate) const fn stride(size: u32) -> u32 {
    if size / 4 < STRIDE { size / 4 } else { STRIDE }
}

/// One end's view of the ring: the producer's `Side<PRODUCER, CONSUMER>`, or the consumer's
/// `Side<CONSUMER, PRODUCER>`. The parameters are the lines of the control page that this end and
/// its peer write.
#[derive(Debug)]
pub(crate) struct Side<const OWN: usize, const PEER: usize> {
    pub(crate) control: ControlPage,
    pub(crate) data: DataArea,
    pub(crate) size: u32,
    pub(crate) counters: Counters,
    /// The own index as the peer sees it.
    announced: u32,
    /// Announced and not yet compared with the peer's event index.
    pending: Pending,
    violation: Option<Violation>,
}

impl<const OWN: usize, const PEER: usize> Side<OWN, PEER> {
    pub(crate) fn new(control: ControlPage, data: DataArea, index: u32) -> Self {
        Self {
            size: data.size(),
            control,
            data,
            counters: Counters::default(),
            announced: index,
            pending: Pending::default(),
            violation: None,
        }
    }

    /// Fails if the peer has ever written an impossible value: from then on nothing in the page is
    /// trusted.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Violation> {
        self.violation.map_or(Ok(()), Err)
    }

    /// Whether there has been a violation.
    #[inline]
    pub(crate) fn is_violated(&self) -> bool {
        self.violation.is_some()
    }

    /// Records a violation, which is permanent.
    #[cold]
    pub(crate) fn fail<T>(&mut self, violation: Violation) -> Result<T, Violation> {
        self.violation = Some(violation);
        Err(violation)
    }

    /// The own index as the peer sees it.
    #[inline]
    pub(crate) fn announced(&self) -> u32 {
        self.announced
    }

    /// Notes that `index` is about to be stored in the page.
    #[inline]
    fn note(&mut self, index: u32) {
        self.pending.add(index.wrapping_sub(self.announced));
        self.announced = index;
    }

    /// Lets an awake peer see `index`. Only a later comparison wakes a sleeping one.
    #[inline]
    pub(crate) fn store_index(&mut self, index: u32) {
        self.note(index);
        self.control.store(OWN + INDEX, index, Release);
    }

    /// Announces `index` to the peer. `true`: it sleeps and waits for this, notify it.
    #[inline]
    pub(crate) fn announce(&mut self, index: u32) -> Result<bool, Violation> {
        self.check()?;
        if index == self.announced && self.pending.is_empty() {
            return Ok(false);
        }
        self.note(index);
        let control = &self.control;
        let event_index = announce_then_look(
            || control.store(OWN + INDEX, index, Release),
            || control.load(PEER + EVENT_INDEX, Relaxed),
        );
        self.compare(event_index)
    }

    /// Announces `index` and a wait until the peer reaches `event_index`. Returns the peer's event
    /// index and what `look` loads after it; end with [`armed`](Self::armed).
    pub(crate) fn arm<T>(
        &mut self,
        index: u32,
        event_index: u32,
        look: impl FnOnce(&ControlPage) -> T,
    ) -> (u32, T) {
        self.note(index);
        let control = &self.control;
        announce_then_look(
            || {
                control.store(OWN + INDEX, index, Release);
                control.store(OWN + EVENT_INDEX, event_index, Relaxed);
            },
            || (control.load(PEER + EVENT_INDEX, Relaxed), look(control)),
        )
    }

    /// The outcome of an [`arm`](Self::arm) that found the peer's `event_index`.
    pub(crate) fn armed(&mut self, ready: bool, event_index: u32) -> Result<Armed, Violation> {
        if ready {
            self.disarm();
        } else {
            self.counters.waits += 1;
        }
        let notify = self.compare(event_index)?;
        Ok(Armed { ready, notify })
    }

    /// Withdraws the own event index.
    pub(crate) fn disarm(&self) {
        self.control
            .store(OWN + EVENT_INDEX, never(self.announced), Relaxed);
    }

    /// Whether what was announced reaches the peer's event index, so that it must be notified.
    #[inline]
    fn compare(&mut self, event_index: u32) -> Result<bool, Violation> {
        if self.pending.is_empty() {
            return Ok(false);
        }
        let notify = match self.pending.reached(event_index, self.announced) {
            Ok(notify) => notify,
            Err(violation) => return self.fail(violation),
        };
        self.counters.count_comparison(notify);
        self.publish_counters();
        Ok(notify)
    }

    #[inline]
    pub(crate) fn publish_counters(&self) {
        self.counters.publish(&self.control, OWN + COUNTERS);
    }

    /// Replaces the pages.
    ///
    /// # Panics
    /// If the new ring has another size.
    pub(crate) fn move_to(&mut self, control: ControlPage, data: DataArea) {
        assert_eq!(data.size(), self.size, "a ring moves to one of its size");
        self.control = control;
        self.data = data;
    }
}

/// How far the index moved since it was last compared with the peer's event index.
#[derive(Debug, Default)]
struct Pending(u32);

impl Pending {
    /// Notes that the announced index moved on by `bytes`.
    fn add(&mut self, bytes: u32) {
        self.0 = self.0.saturating_add(bytes);
    }

    /// Whether nothing moved since the last comparison.
    fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Whether the moves noted, which ended at `index`, reached the peer's `event_index`: then it
    /// must be notified. Forgets them.
    ///
    /// As in Xen's ring.h: the event index lies in (old, new], compared modulo 2^32. A stale one is
    /// therefore reached again after 4 GiB, which costs one needless notification.
    #[inline]
    fn reached(&mut self, event_index: u32, index: u32) -> Result<bool, Violation> {
        if !event_index.is_multiple_of(RECORD_ALIGN as u32) {
            return Err(Violation::EventIndex(event_index));
        }
        let moved = std::mem::take(&mut self.0);
        // Saturated means more than a lap since the last comparison: every aligned index was
        // reached.
        Ok(index.wrapping_sub(event_index) < moved)
    }
}

/// What one end has counted since it was made. In its line of the page: u64 each, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Complete messages written or read.
    pub messages: u64,
    /// Payload bytes of those messages.
    pub bytes: u64,
    /// How often this end prepared to sleep and found nothing to do: a full ring for the producer,
    /// an empty one for the consumer.
    pub waits: u64,
    /// Notifications that this end had to send.
    pub notifications: u64,
    /// Notifications saved because the peer was awake.
    pub notifications_saved: u64,
}

impl Counters {
    /// Publishes the counters in the line at `line`. Each word is exact; the five together are not
    /// an atomic snapshot.
    #[inline]
    pub(crate) fn publish(&self, page: &ControlPage, line: usize) {
        let values = [
            self.messages,
            self.bytes,
            self.waits,
            self.notifications,
            self.notifications_saved,
        ];
        for (i, value) in values.into_iter().enumerate() {
            page.store_count(line + 8 * i, value);
        }
    }

    /// Counts one comparison with the peer's event index.
    pub(crate) fn count_comparison(&mut self, notify: bool) {
        if notify {
            self.notifications += 1;
        } else {
            self.notifications_saved += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(old: u32, new: u32, event_index: u32) -> bool {
        let mut pending = Pending::default();
        pending.add(new.wrapping_sub(old));
        pending.reached(event_index, new).unwrap()
    }

    #[test]
    fn the_event_index_is_reached_from_just_above_old_to_new() {
        for start in [0u32, 0xffff_ffc0, 0x7fff_fff0, 0xffff_fff8] {
            let at = |offset: u32| start.wrapping_add(offset);
            assert!(!reached(start, at(24), at(0)));
            assert!(reached(start, at(24), at(8)));
            assert!(reached(start, at(24), at(24)));
            assert!(!reached(start, at(24), at(32)));
            assert!(!reached(start, at(24), start.wrapping_sub(8)));
            assert!(!reached(start, at(1 << 20), never(start)));
            assert!(!reached(start, start, at(8)));
        }
    }

    #[test]
    fn a_lap_without_a_comparison_notifies_to_be_safe() {
        let mut pending = Pending::default();
        pending.add(1 << 31);
        pending.add(1 << 31);
        assert_eq!(pending.reached(8, 0), Ok(true));
        assert!(pending.is_empty());
    }

    #[test]
    fn an_unaligned_event_index_is_a_violation() {
        let mut pending = Pending::default();
        pending.add(8);
        assert_eq!(pending.reached(4, 8), Err(Violation::EventIndex(4)));
    }
}
