//! Introspection of a link.

use super::Link;
use crate::half::{Active, Receiver, SenderInfo};
use crate::status::{Event, Flags};
use crate::vm::Vm;
use tube_ring::Counters;

/// The state of a link. Not an atomic snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Bytes of the ring that this end writes.
    pub tx_ring: usize,
    /// Bytes of the ring that this end reads.
    pub rx_ring: usize,
    /// Counters of the writing end.
    pub tx: Counters,
    /// Counters of the reading end.
    pub rx: Counters,
    /// Bytes of the largest message sent.
    pub tx_largest: usize,
    /// Bytes of the largest message that the owner has taken.
    pub rx_largest: usize,
    /// Bytes that the peer has not released yet, headers included, as last loaded.
    pub tx_backlog: usize,
    /// Bytes that the owner has not taken yet, headers included, as last loaded.
    pub rx_backlog: usize,
    /// This end sends nothing after the message in progress.
    pub tx_finished: bool,
    /// The peer sends nothing more.
    pub rx_finished: bool,
    /// The peer's end is gone.
    pub gone: bool,
    /// The active mode.
    pub active: Active,
}

impl Info {
    fn new<V: Vm>(tx: SenderInfo, rx: &Receiver<V>, now: Flags) -> Info {
        let consumer = rx.consumer();
        Info {
            tx_ring: tx.capacity,
            rx_ring: consumer.capacity(),
            tx: tx.counters,
            rx: consumer.counters(),
            tx_largest: tx.largest,
            rx_largest: rx.largest(),
            tx_backlog: tx.backlog,
            rx_backlog: consumer.backlog(),
            tx_finished: tx.finishing,
            rx_finished: now.has(Event::Fin),
            gone: now.has(Event::Gone),
            active: rx.active(),
        }
    }
}

impl<V: Vm> Link<V> {
    /// The state of the link, its halves locked one after the other. `None` if it is closed.
    pub fn info(&self) -> Option<Info> {
        let tx = self.tx.lock().ok()?.as_ref()?.info();
        let rx = self.rx.lock().ok()?;
        Some(Info::new(tx, rx.as_ref()?, self.status.now()))
    }
}
