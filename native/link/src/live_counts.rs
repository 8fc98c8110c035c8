//! What is alive in this process, counted for those who look for leaks.

use std::sync::atomic::{AtomicUsize, Ordering};

static LINKS: AtomicUsize = AtomicUsize::new(0);
static CHANNELS: AtomicUsize = AtomicUsize::new(0);
static PAGES: AtomicUsize = AtomicUsize::new(0);

/// Live resources of all links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveCounts {
    /// Links that hold pages.
    pub links: usize,
    /// Event channels, which may outlive their link until nobody polls them any more.
    pub channels: usize,
    /// Pages mapped, of 4096 bytes.
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

/// Counts something for as long as it lives.
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
    pub(crate) fn channel() -> Counted {
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
