//! One client's connection: input, queued output, open transactions.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::codec::{Assembler, WATCH_EVENT, encode};
use super::perms::Domid;
use super::transaction::Transaction;

/// Closes a connection to the store. The client gets no message about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionError {
    /// A request header gave a length of more than 4096 bytes, so the rest of the stream cannot be
    /// decoded.
    Oversized {
        /// The length in the header, in bytes.
        len: u32,
    },
    /// The client does not read its output, and more is queued than the quota allows. C xenstored
    /// drops events instead; a disconnected client knows that it must read the store again.
    Unread,
    /// The connection does not exist, or its domain was released.
    Unknown,
}

/// A queued message.
struct Outgoing {
    bytes: Arc<[u8]>,
    event: bool,
}

/// A connection.
pub struct Connection {
    /// The client's domain.
    pub domid: Domid,
    /// The beginning of the next request.
    pub input: Assembler,
    /// Open transactions by id.
    pub transactions: HashMap<u32, Transaction>,
    /// The transaction id to try next.
    next_transaction: u32,
    queue: VecDeque<Outgoing>,
    /// Bytes of the first message that are sent already.
    sent: usize,
    /// Bytes in the queue.
    queued: usize,
    /// Replies in the queue.
    replies: usize,
    /// The events in the queue. An event that is still queued is not queued again.
    events: HashSet<Arc<[u8]>>,
    /// The caller has been notified of the queued output.
    pub announced: bool,
    /// The connection is to be closed: it ignores input and queues no output.
    pub closed: bool,
}

impl Connection {
    /// A new connection of a domain.
    pub fn new(domid: Domid) -> Connection {
        Connection {
            domid,
            input: Assembler::default(),
            transactions: HashMap::new(),
            next_transaction: 1,
            queue: VecDeque::new(),
            sent: 0,
            queued: 0,
            replies: 0,
            events: HashSet::new(),
            announced: false,
            closed: false,
        }
    }

    /// Adds a transaction. Returns its id, which is not 0 and not in use.
    pub fn add_transaction(&mut self, transaction: Transaction) -> u32 {
        while self.next_transaction == 0 || self.transactions.contains_key(&self.next_transaction) {
            self.next_transaction = self.next_transaction.wrapping_add(1);
        }
        let id = self.next_transaction;
        self.next_transaction = id.wrapping_add(1);
        self.transactions.insert(id, transaction);
        id
    }

    /// Queues a reply.
    pub fn queue_reply(&mut self, kind: u32, req_id: u32, tx_id: u32, payload: &[u8]) {
        self.replies += 1;
        self.push(Outgoing {
            bytes: encode(kind, req_id, tx_id, payload).into(),
            event: false,
        });
    }

    /// Queues a watch event, unless the same one is still queued. Special events are always queued:
    /// each may concern another domain.
    pub fn queue_event(&mut self, payload: &[u8]) {
        let bytes: Arc<[u8]> = encode(WATCH_EVENT, 0, 0, payload).into();
        let special = payload.first() == Some(&b'@');
        if special || self.events.insert(bytes.clone()) {
            self.push(Outgoing { bytes, event: true });
        }
    }

    fn push(&mut self, message: Outgoing) {
        if !self.closed {
            self.queued += message.bytes.len();
            self.queue.push_back(message);
        }
    }

    /// Bytes queued.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Replies queued.
    pub fn replies(&self) -> usize {
        self.replies
    }

    /// The next bytes to send.
    pub fn output(&self) -> &[u8] {
        self.queue
            .front()
            .map_or(&[], |message| &message.bytes[self.sent..])
    }

    /// Removes bytes that have been sent from the queue.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        while let Some(message) = self.queue.front() {
            let len = message.bytes.len();
            if self.sent < len {
                return;
            }
            self.sent -= len;
            self.queued -= len;
            if message.event {
                self.events.remove(&message.bytes);
            } else {
                self.replies -= 1;
            }
            self.queue.pop_front();
        }
        self.sent = 0;
        self.announced = false;
    }

    /// Closes the connection: drops the queue, and queues nothing from then on.
    pub fn close(&mut self) {
        self.closed = true;
        self.queue.clear();
        self.events.clear();
        (self.sent, self.queued, self.replies) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(conn: &mut Connection, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !conn.output().is_empty() {
            let part = conn.output();
            let count = part.len().min(step);
            all.extend_from_slice(&part[..count]);
            conn.sent(count);
        }
        all
    }

    #[test]
    fn messages_are_sent_in_order_in_pieces_of_any_size() {
        let expected = [
            encode(2, 1, 0, b"value"),
            encode(WATCH_EVENT, 0, 0, b"/a\0t\0"),
            encode(16, 2, 3, b"ENOENT\0"),
        ]
        .concat();
        for step in 1..expected.len() {
            let mut conn = Connection::new(1);
            conn.queue_reply(2, 1, 0, b"value");
            conn.queue_event(b"/a\0t\0");
            conn.queue_reply(16, 2, 3, b"ENOENT\0");
            assert_eq!((conn.queued(), conn.replies()), (expected.len(), 2));
            assert_eq!(drain(&mut conn, step), expected);
            assert_eq!((conn.queued(), conn.replies()), (0, 0));
        }
    }

    #[test]
    fn an_event_still_queued_is_not_queued_again() {
        let mut conn = Connection::new(1);
        conn.queue_event(b"/a\0t\0");
        conn.sent(3);
        conn.queue_event(b"/a\0t\0");
        conn.queue_event(b"/a\0u\0");
        assert_eq!(drain(&mut conn, 100).len(), 2 * 21 - 3);
        conn.queue_event(b"/a\0t\0");
        assert_eq!(drain(&mut conn, 100).len(), 21);
        conn.queue_event(b"@releaseDomain\0t\0");
        conn.queue_event(b"@releaseDomain\0t\0");
        assert_eq!(drain(&mut conn, 100).len(), 2 * 33);
    }

    #[test]
    fn transaction_ids_in_use_and_zero_are_skipped() {
        let mut conn = Connection::new(1);
        assert_eq!(conn.add_transaction(Transaction::default()), 1);
        conn.next_transaction = u32::MAX;
        assert_eq!(conn.add_transaction(Transaction::default()), u32::MAX);
        assert_eq!(conn.add_transaction(Transaction::default()), 2);
    }
}
