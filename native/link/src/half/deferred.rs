//! Work deferred until the lock is released: no lock is held while the VM or the event channel is
//! called.

use crate::channel::Channel;
use std::sync::Arc;

pub(crate) struct Deferred<P> {
    /// Senders to wake.
    pub(crate) senders: Vec<P>,
    /// The owner to wake.
    pub(crate) owner: Option<P>,
    /// The busy-polling process to wake.
    pub(crate) poller: Option<P>,
    /// The peer must be notified.
    pub(crate) notify: bool,
    /// The channel to notify it through, set when the lock is released.
    pub(crate) channel: Option<Arc<Channel>>,
}

impl<P> Default for Deferred<P> {
    fn default() -> Self {
        Deferred {
            // An empty vector has no memory, so the common case allocates nothing.
            senders: Vec::new(),
            owner: None,
            poller: None,
            notify: false,
            channel: None,
        }
    }
}

impl<P> Deferred<P> {
    /// Notifies the peer if it must be.
    pub(crate) fn notify_peer(&self) {
        if let Some(channel) = &self.channel {
            channel.notify();
        }
    }
}
