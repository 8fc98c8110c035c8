//! What a call leaves to do once its lock is released: the VM and the event channel are never called
//! with a half of a link locked.

use crate::channel::Channel;
use crate::flow::LinkError;
use std::sync::Arc;
use tube_ring::Violation;

pub(crate) struct Deferred<P> {
    /// Senders to wake.
    pub senders: Vec<P>,
    /// The owner to wake.
    pub owner: Option<P>,
    /// Who polls, to be woken.
    pub poller: Option<P>,
    /// The peer waits for what was done.
    pub ring: bool,
    /// To ring it with.
    pub channel: Option<Arc<Channel>>,
}

impl<P> Default for Deferred<P> {
    fn default() -> Self {
        Deferred {
            // Without elements it has no memory either, so the common case allocates nothing.
            senders: Vec::new(),
            owner: None,
            poller: None,
            ring: false,
            channel: None,
        }
    }
}

/// Why a half could not go on: by the state of things, or by a peer that breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fail {
    Refused(LinkError),
    Violated,
}

impl Fail {
    /// Does this say that nothing more will ever come?
    pub(crate) fn is_the_end(&self) -> bool {
        use LinkError::{Closed, DomainGone, PeerDown, Protocol, Suspended};
        matches!(
            self,
            Fail::Violated | Fail::Refused(Closed | PeerDown | DomainGone | Suspended | Protocol)
        )
    }
}

impl From<Violation> for Fail {
    fn from(_: Violation) -> Fail {
        Fail::Violated
    }
}

impl From<LinkError> for Fail {
    fn from(refusal: LinkError) -> Fail {
        Fail::Refused(refusal)
    }
}
