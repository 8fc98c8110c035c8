//! The pages and the event channel of one link, and the ring ends made of them.

use crate::channel::Channel;
use crate::live_counts::Counted;
use std::sync::Arc;
use tube_platform::Pages;
use tube_ring::{Consumer, ControlPage, DataArea, Live, PAGE, Producer, Role, Violation};

/// Pages of one ring.
pub(crate) struct Ring {
    pub control: Pages,
    pub data: Pages,
}

/// What both halves of a link have in common. Dropped with the second of them, or when both have left it.
pub(crate) struct SharedPages {
    role: Role,
    // The order of the fields is the order of their end: pages first, since the platform rings the channel
    // as it unmaps the one with the live bytes.
    tx: Ring,
    rx: Ring,
    channel: Arc<Channel>,
    _counted: Counted,
}

impl SharedPages {
    /// `tx` and `rx` as the tip names them, whoever we are. The control pages are mapped writable; the
    /// data pages are 2^order, and writable in the direction in which `role` writes.
    pub(crate) fn new(role: Role, tx: Ring, rx: Ring, channel: Arc<Channel>) -> SharedPages {
        for ring in [&tx, &rx] {
            // What the ring ends below rely on, whatever the platform made of the request.
            assert_eq!(ring.control.len(), PAGE);
            assert!((ring.data.len() / PAGE).is_power_of_two());
        }
        let bytes = [&tx, &rx].map(|ring| ring.control.len() + ring.data.len());
        let _counted = Counted::link((bytes[0] + bytes[1]) / PAGE);
        SharedPages {
            role,
            tx,
            rx,
            channel,
            _counted,
        }
    }

    /// The ends that are ours.
    ///
    /// # Safety
    /// Called once. The ends must be gone before `self` is.
    pub(crate) unsafe fn ends(&self, max_message: u32) -> (Producer, Consumer) {
        let (ours, theirs) = match self.role {
            Role::Tip => (&self.tx, &self.rx),
            Role::Nock => (&self.rx, &self.tx),
        };
        // SAFETY: both rings are mapped as `new` says, for as long as `self`, which outlives the ends; each
        // data area is used by the one end that is made here.
        unsafe {
            let producer = Producer::new(control(&ours.control), area(&ours.data));
            let consumer = Consumer::new(control(&theirs.control), area(&theirs.data), max_message);
            (producer, consumer)
        }
    }

    /// Is it the peer's, which only the tip's is not?
    pub(crate) fn is_foreign(&self) -> bool {
        self.role == Role::Nock
    }

    /// Has the other end let go of its pages?
    pub(crate) fn peer_gone(&self) -> Result<bool, Violation> {
        let peer = match self.role {
            Role::Tip => Role::Nock,
            Role::Nock => Role::Tip,
        };
        // SAFETY: the handle does not leave this function.
        let control = unsafe { control(&self.tx.control) };
        Ok(control.live(peer)? == Live::Gone)
    }

    pub(crate) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }
}

/// # Safety
/// The result and its clones must be gone before `pages` are.
pub(crate) unsafe fn control(pages: &Pages) -> ControlPage {
    assert!(pages.len() >= PAGE);
    // SAFETY: a page is mapped there, writable (every control page is asked for so), and in this process
    // only `tube_ring` looks at it.
    unsafe { ControlPage::from_raw(pages.ptr()) }
}

/// # Safety
/// Once per mapping, the end made of the result must be gone before `pages` are, and it must be a
/// consumer if they are mapped read-only.
unsafe fn area(pages: &Pages) -> DataArea {
    let order = (pages.len() / PAGE).ilog2();
    // SAFETY: 2^order pages are mapped there, and the caller promises the rest.
    unsafe { DataArea::from_raw(pages.ptr(), order) }
}
