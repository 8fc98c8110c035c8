//! A client of the store.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::TIMEOUT;

/// Message types of the xenstore protocol that tests use.
pub mod op {
    pub const DIRECTORY: u32 = 1;
    pub const READ: u32 = 2;
    pub const WATCH: u32 = 4;
    pub const WRITE: u32 = 11;
    pub const RM: u32 = 13;
    pub const SET_PERMS: u32 = 14;
    pub const WATCH_EVENT: u32 = 15;
    pub const ERROR: u32 = 16;
}

/// A connection to the store.
pub struct Store(pub UnixStream);

impl Store {
    pub fn connect(path: &Path) -> Store {
        let stream = UnixStream::connect(path).expect("connected");
        stream.set_read_timeout(Some(TIMEOUT)).expect("set");
        stream.set_write_timeout(Some(TIMEOUT)).expect("set");
        Store(stream)
    }

    pub fn message(op: u32, payload: &[u8]) -> Vec<u8> {
        let header: Vec<u8> = [op, 1, 0, payload.len() as u32]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect();
        [&header, payload].concat()
    }

    pub fn send(&mut self, op: u32, payload: &[u8]) {
        self.0
            .write_all(&Store::message(op, payload))
            .expect("sent");
    }

    /// The next message: type and payload.
    pub fn receive(&mut self) -> std::io::Result<(u32, Vec<u8>)> {
        let mut header = [0; 16];
        self.0.read_exact(&mut header)?;
        let field =
            |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let mut payload = vec![0; field(12) as usize];
        self.0.read_exact(&mut payload)?;
        Ok((field(0), payload))
    }

    /// Sends a request and returns its reply. Skips events.
    pub fn ask(&mut self, op: u32, payload: &[u8]) -> (u32, Vec<u8>) {
        self.send(op, payload);
        loop {
            let (got, payload) = self.receive().expect("a reply");
            if got != op::WATCH_EVENT {
                return (got, payload);
            }
        }
    }

    /// The payload of a reply that must not be an error.
    pub fn must(&mut self, op: u32, payload: &[u8]) -> Vec<u8> {
        let (got, reply) = self.ask(op, payload);
        assert_eq!(got, op, "{}", String::from_utf8_lossy(&reply));
        reply
    }

    /// Waits for an event about exactly this path.
    pub fn await_event(&mut self, path: &str) {
        let wanted = format!("{path}\0");
        loop {
            let (op, payload) = self.receive().expect("an event");
            if op == op::WATCH_EVENT && payload.starts_with(wanted.as_bytes()) {
                return;
            }
        }
    }
}
