//! Making a link: the tip shares pages, the nock maps them.

use super::Link;
use crate::channel::Channel;
use crate::error::ConnectError;
use crate::memory::{Ring, SharedPages, control};
use crate::vm::Vm;
use std::sync::Arc;
use tube_platform::{Access, Domid, Errno, Error, ErrorKind, Gref, Notify, Pages, Platform};
use tube_ring::{Direction, LIVE_NOCK, LIVE_TIP, Live, ORDER_MAX, Role};

/// What a tip shares.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// The domain to share with.
    pub peer: Domid,
    /// Data pages of the ring that the tip writes: 2^order, at most [`ORDER_MAX`].
    pub order_tx: u32,
    /// Data pages of the ring that the tip reads.
    pub order_rx: u32,
    /// Identifies this attempt.
    pub nonce: u64,
    /// Longest message that this end takes, in bytes.
    pub max_message: u32,
}

/// What the nock needs to map it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refs {
    /// Control page of the ring that the tip writes.
    pub tx_ring_ref: Gref,
    /// Control page of the ring that the tip reads.
    pub rx_ring_ref: Gref,
    /// The tip's port.
    pub event_channel: u32,
    /// The order of the ring that the tip writes, at most the one offered.
    pub order_tx: u32,
    /// The same for the other ring.
    pub order_rx: u32,
}

impl<V: Vm> Link<V> {
    /// Makes the tip's end. If grants are scarce, the rings are smaller, down to one page each.
    ///
    /// # Errors
    /// Those of the platform; `EINVAL` for an order above [`ORDER_MAX`].
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

    /// Makes the nock's end of what `peer` has shared under `nonce`. `tx_ref` is the ring that the
    /// peer writes.
    ///
    /// # Errors
    /// Those of the platform, or the page's violation, which an honest peer causes only if `nonce`
    /// is that of another attempt.
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
        unsafe { control(&tx.control) }.set_live(Role::Nock, Live::Here);
        let memory = SharedPages::new(Role::Nock, tx, rx, channel);
        Ok(Link::new(memory, max_message))
    }
}

/// Shares the data pages of both rings. On ENOSPC, halves the larger ring, or both if they are
/// equal.
fn share_data(platform: &dyn Platform, offer: Offer) -> Result<(Pages, Pages), Error> {
    let (mut tx, mut rx) = (offer.order_tx, offer.order_rx);
    loop {
        // The peer may only read the ring that this end writes.
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
