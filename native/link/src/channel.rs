//! The event channel of a link, and the count of live resources.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use tube_platform::{Ack, EventChannel};

static LINKS: AtomicUsize = AtomicUsize::new(0);
static CHANNELS: AtomicUsize = AtomicUsize::new(0);
static PAGES: AtomicUsize = AtomicUsize::new(0);

/// One end of an event channel, shared with the poll of its descriptor, which is open as long as
/// this lives.
pub struct Channel {
    inner: Box<dyn EventChannel>,
    _counted: Counted,
}

impl Channel {
    pub(crate) fn new(inner: Box<dyn EventChannel>) -> Channel {
        Channel {
            inner,
            _counted: Counted::channel(),
        }
    }

    /// The descriptor to poll: when it is readable, call
    /// [`Link::notified`](crate::Link::notified).
    pub fn fd(&self) -> RawFd {
        self.inner.fd().as_raw_fd()
    }

    pub(crate) fn port(&self) -> u32 {
        self.inner.port()
    }

    /// Notifies the peer.
    pub(crate) fn notify(&self) {
        // If the peer is gone, the own end of the channel will report it.
        _ = self.inner.notify();
    }

    /// Consumes a pending notification. `true`: the peer is gone.
    pub(crate) fn acknowledge(&self) -> bool {
        // A broken descriptor counts as a gone peer: no notification will ever come.
        !matches!(self.inner.acknowledge(), Ok(Ack::Open))
    }
}

/// Live resources of all links in this process, for leak checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveCounts {
    /// Links that hold pages.
    pub links: usize,
    /// Event channels. They outlive their link while their descriptor is polled.
    pub channels: usize,
    /// Mapped pages of 4096 bytes.
    pub pages: usize,
}

impl LiveCounts {
    /// The counts now.
    pub fn now() -> LiveCounts {
        LiveCounts {
            links: LINKS.load(Ordering::Relaxed),
            channels: CHANNELS.load(Ordering::Relaxed),
            pages: PAGES.load(Ordering::Relaxed),
        }
    }
}

/// Counts a resource for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted {
    links: usize,
    channels: usize,
    pages: usize,
}

impl Counted {
    /// One link of so many pages.
    pub(crate) fn link(pages: usize) -> Counted {
        Counted::new(1, 0, pages)
    }

    /// One event channel.
    fn channel() -> Counted {
        Counted::new(0, 1, 0)
    }

    fn new(links: usize, channels: usize, pages: usize) -> Counted {
        LINKS.fetch_add(links, Ordering::Relaxed);
        CHANNELS.fetch_add(channels, Ordering::Relaxed);
        PAGES.fetch_add(pages, Ordering::Relaxed);
        Counted {
            links,
            channels,
            pages,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LINKS.fetch_sub(self.links, Ordering::Relaxed);
        CHANNELS.fetch_sub(self.channels, Ordering::Relaxed);
        PAGES.fetch_sub(self.pages, Ordering::Relaxed);
    }
}
