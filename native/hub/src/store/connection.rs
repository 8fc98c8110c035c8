//! One client's connection: bytes in, messages out, open transactions.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::codec::{Assembler, WATCH_EVENT, encode};
use super::perms::Domid;
use super::transaction::Transaction;

/// Why a connection must be closed. Nothing is sent to the client about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionError {
    /// A request announced a payload of more than 4096 bytes: the stream cannot be followed any
    /// further.
    Oversized {
        /// The length in bytes that the header gave.
        len: u32,
    },
    /// The client does not read what is sent to it, and more waits for it than the quota allows. C
    /// xenstored drops events instead; a client that is cut off knows that it has to look again.
    Unread,
    /// The connection is not, or no longer, known: its domain was released.
    Unknown,
}

/// A message that waits to be sent.
struct Outgoing {
    bytes: Arc<[u8]>,
    event: bool,
}

/// A connection.
pub struct Connection {
    /// The domain at the other end.
    pub domid: Domid,
    /// What has come of the next request.
    pub input: Assembler,
    /// Open transactions by id.
    pub transactions: HashMap<u32, Transaction>,
    /// The transaction id to try next.
    next_transaction: u32,
    queue: VecDeque<Outgoing>,
    /// Bytes of the first message that have been sent.
    sent: usize,
    /// Bytes in the queue.
    queued: usize,
    /// Replies in the queue.
    replies: usize,
    /// The events in the queue: one that is still unread need not be told again.
    events: HashSet<Arc<[u8]>>,
    /// The caller has been told of the output that is there.
    pub announced: bool,
    /// It is to be closed; takes and gives nothing any more.
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

    /// Keeps a new transaction; returns its id, which is not 0 and not in use.
    pub fn add_transaction(&mut self, transaction: Transaction) -> u32 {
        while self.next_transaction == 0 || self.transactions.contains_key(&self.next_transaction) {
            self.next_transaction = self.next_transaction.wrapping_add(1);
        }
        let id = self.next_transaction;
        self.next_transaction = id.wrapping_add(1);
        self.transactions.insert(id, transaction);
        id
    }

    /// Queues an answer.
    pub fn queue_reply(&mut self, kind: u32, req_id: u32, tx_id: u32, payload: &[u8]) {
        self.replies += 1;
        self.push(Outgoing {
            bytes: encode(kind, req_id, tx_id, payload).into(),
            event: false,
        });
    }

    /// Queues a watch event, unless the same one still waits there. Special events always count:
    /// each may be about another domain.
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

    /// Bytes that wait to be sent.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Answers that wait to be sent.
    pub fn replies(&self) -> usize {
        self.replies
    }

    /// The next bytes to be sent.
    pub fn output(&self) -> &[u8] {
        self.queue
            .front()
            .map_or(&[], |message| &message.bytes[self.sent..])
    }

    /// So many bytes have been sent.
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

    /// Gives up: frees what is queued, and queues nothing any more.
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
    fn messages_leave_in_order_in_any_pieces() {
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
    fn an_event_that_still_waits_is_not_told_again() {
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
