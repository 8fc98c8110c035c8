//! What is alive in this process, counted for those who look for leaks.

use std::sync::atomic::{AtomicUsize, Ordering};

static LINKS: AtomicUsize = AtomicUsize::new(0);
static PAGES: AtomicUsize = AtomicUsize::new(0);

/// Live resources of all links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Links that hold pages and an event channel.
    pub links: usize,
    /// Pages mapped, of 4096 bytes.
    pub pages: usize,
}

impl Census {
    /// The counts now.
    pub fn take() -> Census {
        Census {
            links: LINKS.load(Ordering::Relaxed),
            pages: PAGES.load(Ordering::Relaxed),
        }
    }
}

/// Counts one link and its pages for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted {
    pages: usize,
}

impl Counted {
    pub(crate) fn new(pages: usize) -> Counted {
        LINKS.fetch_add(1, Ordering::Relaxed);
        PAGES.fetch_add(pages, Ordering::Relaxed);
        Counted { pages }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LINKS.fetch_sub(1, Ordering::Relaxed);
        PAGES.fetch_sub(self.pages, Ordering::Relaxed);
    }
}
