//! What a link has done, for people to look at.

use crate::flow::Active;
use crate::rx::Receiver;
use crate::status::{Event, Flags};
use crate::tx::Sender;
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
    /// Bytes of the largest message that we sent.
    pub tx_largest: usize,
    /// Bytes of the largest message that the owner has taken.
    pub rx_largest: usize,
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
    pub active: Active,
}

impl Info {
    pub(crate) fn new<V: Vm>(tx: Sending, rx: &Receiver<V>, now: Flags) -> Info {
        let Sending {
            counters,
            ring: tx_ring,
            largest: tx_largest,
            backlog: tx_backlog,
            finished: tx_finished,
        } = tx;
        let consumer = rx.consumer();
        Info {
            tx_ring,
            rx_ring: consumer.capacity(),
            tx: counters,
            rx: consumer.counters(),
            tx_largest,
            rx_largest: rx.largest,
            tx_backlog,
            rx_backlog: consumer.backlog(),
            tx_finished,
            rx_finished: now.has(Event::Fin),
            gone: now.has(Event::Gone),
            active: rx.active,
        }
    }
}

/// The sending half's part of it.
pub(crate) struct Sending {
    counters: Counters,
    ring: usize,
    largest: usize,
    backlog: usize,
    finished: bool,
}

impl<P: Copy + PartialEq> Sender<P> {
    pub(crate) fn info(&self) -> Sending {
        let producer = self.producer();
        Sending {
            counters: producer.counters(),
            ring: producer.capacity(),
            largest: self.largest as usize,
            backlog: producer.backlog(),
            finished: self.is_finishing(),
        }
    }
}
