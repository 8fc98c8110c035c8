//! What a link has done, for people to look at.

use crate::flow::Mode;
use crate::rx::Rx;
use crate::status::{Event, Flags};
use crate::tx::Tx;
use crate::vm::Vm;
use tube_ring::Counters;

/// The state of a link at about one moment.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Bytes of the ring that we write.
    pub tx_ring: usize,
    /// Bytes of the ring that we read.
    pub rx_ring: usize,
    /// What we have counted while writing.
    pub tx: Counters,
    /// What we have counted while reading.
    pub rx: Counters,
    /// Bytes that the peer has not taken yet, as last seen, headers included.
    pub tx_backlog: usize,
    /// Bytes that the owner has not taken yet, as last seen, headers included.
    pub rx_backlog: usize,
    /// We send no more, once the message in progress is done.
    pub tx_finished: bool,
    /// The peer sends no more.
    pub rx_finished: bool,
    /// The peer's end has gone.
    pub gone: bool,
    /// How messages are delivered.
    pub mode: Mode,
}

impl Info {
    pub(crate) fn new<V: Vm>(tx: (Counters, usize, usize, bool), rx: &Rx<V>, now: Flags) -> Info {
        let (counters, tx_ring, tx_backlog, tx_finished) = tx;
        let consumer = rx.consumer();
        Info {
            tx_ring,
            rx_ring: consumer.capacity(),
            tx: counters,
            rx: consumer.counters(),
            tx_backlog,
            rx_backlog: consumer.backlog(),
            tx_finished,
            rx_finished: now.has(Event::Fin),
            gone: now.has(Event::Gone),
            mode: rx.mode,
        }
    }
}

impl<P: Copy + PartialEq> Tx<P> {
    /// Counters, ring size, backlog, finished.
    pub(crate) fn info(&self) -> (Counters, usize, usize, bool) {
        let producer = self.producer();
        (
            producer.counters(),
            producer.capacity(),
            producer.backlog(),
            self.is_finishing(),
        )
    }
}
