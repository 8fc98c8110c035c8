//! The event channel of a link, counted, and shared with whoever polls its descriptor.

use crate::live_counts::Counted;
use std::os::fd::{AsRawFd, RawFd};
use tube_platform::{Ack, EventChannel};

/// One end of an event channel. Its descriptor is open as long as this lives.
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

    /// The descriptor to poll: readable when [`Link::bell`](crate::Link::bell) is to be called.
    pub fn fd(&self) -> RawFd {
        self.inner.fd().as_raw_fd()
    }

    pub(crate) fn port(&self) -> u32 {
        self.inner.port()
    }

    pub(crate) fn ring(&self) {
        // A peer that has gone does not hear, and our own end of the channel will say so.
        _ = self.inner.notify();
    }

    /// Consumes what is pending. True when the peer has gone.
    pub(crate) fn acknowledge(&self) -> bool {
        // A broken descriptor is as good as a peer that has gone: nothing will be heard again.
        !matches!(self.inner.acknowledge(), Ok(Ack::Open))
    }
}
