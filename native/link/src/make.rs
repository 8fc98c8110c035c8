//! How the two ends of a link come to be: the tip shares, the nock maps.

use crate::channel::Channel;
use crate::memory::{Ring, SharedPages, control};
use crate::{Link, Vm};
use std::fmt;
use std::sync::Arc;
use tube_platform::{Access, Domid, Errno, Error, ErrorKind, Gref, Notify, Pages, Platform};
use tube_ring::{Direction, LIVE_NOCK, LIVE_TIP, ORDER_MAX, Role, Violation};

/// What a tip means to share.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// With whom.
    pub peer: Domid,
    /// Data pages of the ring that the tip writes: 2^order, at most [`ORDER_MAX`].
    pub order_tx: u32,
    /// Data pages of the ring that the tip reads.
    pub order_rx: u32,
    /// Names this attempt.
    pub nonce: u64,
    /// Longest message that we take, in bytes.
    pub max_message: u32,
}

/// What the nock must be told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refs {
    /// Control page of the ring that the tip writes.
    pub tx_ring_ref: Gref,
    /// Control page of the ring that the tip reads.
    pub rx_ring_ref: Gref,
    /// The tip's port.
    pub event_channel: u32,
    /// What there was room for, at most what was offered.
    pub order_tx: u32,
    /// The same for the other ring.
    pub order_rx: u32,
}

/// Why there is no link.
#[derive(Debug)]
pub enum ConnectError {
    /// The platform could not.
    Platform(Error),
    /// The pages are not what a tip of this attempt shares.
    Page(Violation),
}

impl ConnectError {
    /// One lower-case word, fit to become an atom.
    pub fn atom(&self) -> &'static str {
        match self {
            ConnectError::Platform(error) => error.atom(),
            ConnectError::Page(_) => "protocol",
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Platform(error) => error.fmt(f),
            ConnectError::Page(violation) => violation.fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<Error> for ConnectError {
    fn from(error: Error) -> ConnectError {
        ConnectError::Platform(error)
    }
}

impl From<Violation> for ConnectError {
    fn from(violation: Violation) -> ConnectError {
        ConnectError::Page(violation)
    }
}

impl<V: Vm> Link<V> {
    /// The tip's end. Where grants are short it makes do with smaller rings, down to one page each.
    ///
    /// # Errors
    /// As the platform says; `EINVAL` for an order above [`ORDER_MAX`].
    pub fn share(platform: &dyn Platform, offer: Offer) -> Result<(Link<V>, Refs), ConnectError> {
        if offer.order_tx.max(offer.order_rx) > ORDER_MAX {
            return Err(Error::posix(Errno::INVAL, "ring order").into());
        }
        let channel = Arc::new(Channel::new(platform.evtchn_unbound(offer.peer)?));
        let notify = Notify {
            offset: LIVE_TIP,
            port: channel.port(),
        };
        let page = |notify| platform.share(offer.peer, 1, Access::ReadWrite, notify);
        let (tx_control, rx_control) = (page(Some(notify))?, page(None)?);
        let (tx_data, rx_data) = share_data(platform, offer)?;
        for (pages, direction, data) in [
            (&tx_control, Direction::Tx, &tx_data),
            (&rx_control, Direction::Rx, &rx_data),
        ] {
            let order = data.refs().len().ilog2();
            // SAFETY: the handle does not outlive this statement.
            let control = unsafe { control(pages) };
            control.initialise(direction, order, offer.nonce, data.refs());
        }
        let refs = Refs {
            tx_ring_ref: tx_control.refs()[0],
            rx_ring_ref: rx_control.refs()[0],
            event_channel: channel.port(),
            order_tx: tx_data.refs().len().ilog2(),
            order_rx: rx_data.refs().len().ilog2(),
        };
        let (tx, rx) = (
            Ring {
                control: tx_control,
                data: tx_data,
            },
            Ring {
                control: rx_control,
                data: rx_data,
            },
        );
        let memory = SharedPages::new(Role::Tip, tx, rx, channel);
        Ok((Link::new(memory, offer.max_message), refs))
    }

    /// The nock's end of what `peer` has shared under `nonce`; `tx` is what the peer writes.
    ///
    /// # Errors
    /// As the platform says, or the page's violation, which a peer of good will has only when `nonce` is
    /// of another attempt.
    pub fn map(
        platform: &dyn Platform,
        peer: Domid,
        (tx_ref, rx_ref, port): (Gref, Gref, u32),
        nonce: u64,
        max_message: u32,
    ) -> Result<Link<V>, ConnectError> {
        let channel = Arc::new(Channel::new(platform.evtchn_bind(peer, port)?));
        let notify = Notify {
            offset: LIVE_NOCK,
            port: channel.port(),
        };
        let ring = |gref, direction, access, notify| -> Result<Ring, ConnectError> {
            let pages = platform.map(peer, &[gref], Access::ReadWrite, notify)?;
            // SAFETY: the handle does not outlive this statement.
            let geometry = unsafe { control(&pages) }.check(direction, nonce)?;
            let data = platform.map(peer, &geometry.grefs, access, None)?;
            Ok(Ring {
                control: pages,
                data,
            })
        };
        let tx = ring(tx_ref, Direction::Tx, Access::ReadOnly, Some(notify))?;
        let rx = ring(rx_ref, Direction::Rx, Access::ReadWrite, None)?;
        // SAFETY: as above.
        unsafe { control(&tx.control) }.set_live(Role::Nock, tube_ring::Live::Here);
        let memory = SharedPages::new(Role::Nock, tx, rx, channel);
        Ok(Link::new(memory, max_message))
    }
}

/// The data pages of both rings. On ENOSPC the larger ring is halved, both if they are alike.
fn share_data(platform: &dyn Platform, offer: Offer) -> Result<(Pages, Pages), Error> {
    let (mut tx, mut rx) = (offer.order_tx, offer.order_rx);
    loop {
        // Only what we write is kept from the peer's pen.
        let tried = platform
            .share(offer.peer, 1 << tx, Access::ReadOnly, None)
            .and_then(|ours| {
                let theirs = platform.share(offer.peer, 1 << rx, Access::ReadWrite, None)?;
                Ok((ours, theirs))
            });
        match tried {
            Err(error) if error.kind == ErrorKind::Posix(Errno::NOSPC) && tx + rx > 0 => {
                (tx, rx) = (tx - u32::from(tx >= rx), rx - u32::from(rx >= tx));
            }
            other => return other,
        }
    }
}
