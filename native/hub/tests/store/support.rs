//! Test support: a store and its clients, with requests, replies and events as text.

use tube_hub::store::{ConnId, Notice, Quota, Xenstored};

pub const DIRECTORY: u32 = 1;
pub const READ: u32 = 2;
pub const GET_PERMS: u32 = 3;
pub const WATCH: u32 = 4;
pub const UNWATCH: u32 = 5;
pub const START: u32 = 6;
pub const END: u32 = 7;
pub const INTRODUCE: u32 = 8;
pub const RELEASE: u32 = 9;
pub const DOMAIN_PATH: u32 = 10;
pub const WRITE: u32 = 11;
pub const MKDIR: u32 = 12;
pub const RM: u32 = 13;
pub const SET_PERMS: u32 = 14;
pub const EVENT: u32 = 15;
pub const ERROR: u32 = 16;
pub const RESET_WATCHES: u32 = 21;

/// Header words and payload of a message.
pub type Message = ([u32; 3], Vec<u8>);

/// Encodes a message.
pub fn encode(kind: u32, req_id: u32, tx_id: u32, payload: &[u8]) -> Vec<u8> {
    let words = [kind, req_id, tx_id, payload.len() as u32].map(u32::to_ne_bytes);
    [words.as_flattened(), payload].concat()
}

/// Decodes whole messages.
pub fn decode(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let end = 16 + word(12) as usize;
        messages.push(([word(0), word(4), word(8)], bytes[16..end].to_vec()));
        bytes = &bytes[end..];
    }
    messages
}

/// A store with helpers for its clients.
pub struct Host {
    pub store: Xenstored,
}

impl Host {
    /// With domains 1 to `domains`.
    pub fn new(domains: u16) -> Host {
        let mut host = Host {
            store: Xenstored::new(Quota::default()),
        };
        for domid in 1..=domains {
            assert!(host.store.introduce(domid));
        }
        host
    }

    pub fn connect(&mut self, domid: u16) -> ConnId {
        self.store.connect(domid).expect("introduced")
    }

    /// Takes all output of a connection.
    pub fn drain(&mut self, conn: ConnId) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !self.store.output(conn).is_empty() {
            let part = self.store.output(conn).to_vec();
            self.store.sent(conn, part.len());
            bytes.extend(part);
        }
        bytes
    }

    /// Takes the queued events of a connection, in order: path and token.
    pub fn events(&mut self, conn: ConnId) -> Vec<String> {
        let messages = decode(&self.drain(conn));
        messages
            .into_iter()
            .map(|([kind, ..], payload)| {
                assert_eq!(kind, EVENT);
                let text = String::from_utf8(payload).unwrap();
                text.trim_end_matches('\0').replace('\0', " ")
            })
            .collect()
    }

    /// Sends a request and returns its reply, or the name of the error. Drops events before it.
    pub fn ask_in(&mut self, tx: u32, conn: ConnId, kind: u32, payload: &str) -> String {
        self.store
            .receive(conn, &encode(kind, 7, tx, payload.as_bytes()))
            .expect("not disconnected");
        let messages = decode(&self.drain(conn));
        let reply = messages.into_iter().find(|([kind, ..], _)| *kind != EVENT);
        let ([reply_kind, req_id, tx_id], payload) = reply.expect("a reply");
        assert_eq!((req_id, tx_id), (7, tx));
        assert!(reply_kind == kind || reply_kind == ERROR);
        let text = String::from_utf8(payload).unwrap();
        if reply_kind == ERROR || text == "OK\0" {
            text.trim_end_matches('\0').to_owned()
        } else {
            text
        }
    }

    pub fn ask(&mut self, conn: ConnId, kind: u32, payload: &str) -> String {
        self.ask_in(0, conn, kind, payload)
    }

    pub fn write(&mut self, conn: ConnId, path: &str, value: &str) -> String {
        self.ask(conn, WRITE, &format!("{path}\0{value}"))
    }

    pub fn start(&mut self, conn: ConnId) -> u32 {
        self.ask(conn, START, "\0")
            .trim_end_matches('\0')
            .parse()
            .expect("a transaction")
    }

    /// The connections with an output notice.
    pub fn announced(&mut self) -> Vec<ConnId> {
        let output = |notice| match notice {
            Notice::Output(conn) => Some(conn),
            Notice::Close(..) => None,
        };
        self.store
            .notices()
            .into_iter()
            .filter_map(output)
            .collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.store.audit().unwrap();
        }
    }
}
