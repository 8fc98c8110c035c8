//! The memory of a link: the shared pages and their event channel, and private memory for a half
//! that outlives them.

use crate::channel::{Channel, Counted};
use std::ptr::NonNull;
use std::sync::Arc;
use tube_platform::Pages;
use tube_ring::{Consumer, ControlPage, DataArea, Live, PAGE, Producer, Role, Violation};

/// Pages of one ring.
pub(crate) struct Ring {
    pub(crate) control: Pages,
    pub(crate) data: Pages,
}

/// The pages and the event channel of a link, which both halves share. Dropped when both halves
/// have left them.
pub(crate) struct SharedPages {
    role: Role,
    // Fields drop in this order: pages first, since the platform notifies the channel when it
    // unmaps the page with the live bytes.
    tx: Ring,
    rx: Ring,
    channel: Arc<Channel>,
    _counted: Counted,
}

impl SharedPages {
    /// `tx` and `rx` are named from the tip's point of view, whatever `role` is. The control pages
    /// are mapped writable; the data pages are 2^order, and writable in the direction in which
    /// `role` writes.
    pub(crate) fn new(role: Role, tx: Ring, rx: Ring, channel: Arc<Channel>) -> SharedPages {
        for ring in [&tx, &rx] {
            // The ring ends rely on this, so do not trust the platform.
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

    /// The own ends of both rings.
    ///
    /// # Safety
    /// Call this once. The ends must be gone before `self` is.
    pub(crate) unsafe fn ends(&self, max_message: u32) -> (Producer, Consumer) {
        let (ours, theirs) = match self.role {
            Role::Tip => (&self.tx, &self.rx),
            Role::Nock => (&self.rx, &self.tx),
        };
        // SAFETY: both rings are mapped as `new` says, for as long as `self`, which outlives the
        // ends; each data area is used only by the end made here.
        unsafe {
            let producer = Producer::new(control(&ours.control), area(&ours.data));
            let consumer = Consumer::new(control(&theirs.control), area(&theirs.data), max_message);
            (producer, consumer)
        }
    }

    fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Whether the pages belong to the peer: the tip owns them.
    fn is_foreign(&self) -> bool {
        self.role == Role::Nock
    }

    /// Whether the peer has released the pages.
    fn peer_gone(&self) -> Result<bool, Violation> {
        let peer = match self.role {
            Role::Tip => Role::Nock,
            Role::Nock => Role::Tip,
        };
        // SAFETY: the handle does not leave this function.
        let control = unsafe { control(&self.tx.control) };
        Ok(control.live(peer)? == Live::Gone)
    }
}

/// # Safety
/// The result and its clones must be gone before `pages` are.
pub(crate) unsafe fn control(pages: &Pages) -> ControlPage {
    assert!(pages.len() >= PAGE);
    // SAFETY: a page is mapped there, writable as every control page, and in this process only
    // `tube_ring` accesses it.
    unsafe { ControlPage::from_raw(pages.ptr()) }
}

/// # Safety
/// Call this once per mapping. The end made of the result must be gone before `pages` are, and must
/// be a consumer if they are mapped read-only.
unsafe fn area(pages: &Pages) -> DataArea {
    let order = (pages.len() / PAGE).ilog2();
    // SAFETY: 2^order pages are mapped there, and the caller promises the rest.
    unsafe { DataArea::from_raw(pages.ptr(), order) }
}

/// The memory behind one half of a link.
pub(crate) enum Backing {
    /// The pages of the link, shared with the other half.
    Shared(Arc<SharedPages>),
    /// Private memory of this half.
    Private {
        channel: Arc<Channel>,
        _ring: PrivateRing,
    },
}

impl Backing {
    pub(crate) fn channel(&self) -> &Arc<Channel> {
        match self {
            Backing::Shared(pages) => pages.channel(),
            Backing::Private { channel, .. } => channel,
        }
    }

    /// Whether the peer has released its pages. Always true once this half has left them.
    pub(crate) fn peer_gone(&self) -> Result<bool, Violation> {
        match self {
            Backing::Shared(pages) => pages.peer_gone(),
            Backing::Private { .. } => Ok(true),
        }
    }

    /// Whether this half has the peer's pages mapped.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self, Backing::Shared(pages) if pages.is_foreign())
    }

    /// Calls `move_end` with a private ring of `bytes` for the end that uses this memory, then
    /// releases the shared pages, which are unmapped when both halves have done so. Does nothing
    /// the second time.
    pub(crate) fn leave(&mut self, bytes: usize, move_end: impl FnOnce(ControlPage, DataArea)) {
        let Backing::Shared(pages) = self else {
            return;
        };
        let mut ring = PrivateRing::new(bytes);
        // SAFETY: once for this ring, which the backing keeps from here on, and each half drops its
        // end before its backing (order of its fields).
        let (control, area) = unsafe { ring.parts() };
        move_end(control, area);
        *self = Backing::Private {
            channel: pages.channel().clone(),
            _ring: ring,
        };
    }
}

/// Private memory in the shape of a ring: a control page and data pages, zeroed.
pub(crate) struct PrivateRing {
    // Words, because a ring wants its pages aligned to eight bytes.
    words: Vec<u64>,
}

impl PrivateRing {
    fn new(bytes: usize) -> PrivateRing {
        PrivateRing {
            words: vec![0; (PAGE + bytes) / size_of::<u64>()],
        }
    }

    /// # Safety
    /// Call this once. The result must be gone before `self` is.
    unsafe fn parts(&mut self) -> (ControlPage, DataArea) {
        let bytes = self.words.len() * size_of::<u64>() - PAGE;
        let base = NonNull::from(self.words.as_mut_slice()).cast::<u8>();
        // SAFETY: a page and then `bytes`, which is a power of two of pages since it is the size of
        // a ring, aligned to eight. The vector is never touched again, so they stay in place until
        // it is dropped.
        unsafe {
            let area = DataArea::from_raw(base.add(PAGE), (bytes / PAGE).ilog2());
            (ControlPage::from_raw(base), area)
        }
    }
}
