//! The wire format, implemented independently of the store, so that both cannot share a mistake.

use std::fmt;

pub const DIRECTORY: u32 = 1;
pub const READ: u32 = 2;
pub const GET_PERMS: u32 = 3;
pub const WATCH: u32 = 4;
pub const UNWATCH: u32 = 5;
pub const TRANSACTION_START: u32 = 6;
pub const TRANSACTION_END: u32 = 7;
pub const INTRODUCE: u32 = 8;
pub const RELEASE: u32 = 9;
pub const GET_DOMAIN_PATH: u32 = 10;
pub const WRITE: u32 = 11;
pub const MKDIR: u32 = 12;
pub const RM: u32 = 13;
pub const SET_PERMS: u32 = 14;
pub const WATCH_EVENT: u32 = 15;
pub const ERROR: u32 = 16;
pub const IS_DOMAIN_INTRODUCED: u32 = 17;
pub const RESUME: u32 = 18;
pub const SET_TARGET: u32 = 19;
pub const RESET_WATCHES: u32 = 21;
pub const DIRECTORY_PART: u32 = 22;

/// Bytes of a header.
pub const HEADER: usize = 16;

/// A request, a reply or an event.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: u32,
    pub req_id: u32,
    pub tx_id: u32,
    pub payload: Vec<u8>,
}

impl Message {
    pub fn encode(&self) -> Vec<u8> {
        let len = self.payload.len() as u32;
        let words = [self.kind, self.req_id, self.tx_id, len].map(u32::to_ne_bytes);
        [words.as_flattened(), &self.payload].concat()
    }

    /// Takes one message from the front of `bytes` if it is complete.
    pub fn take(bytes: &mut Vec<u8>) -> Option<Message> {
        let word = |at: usize| {
            Some(u32::from_ne_bytes(
                bytes.get(at..at + 4)?.try_into().unwrap(),
            ))
        };
        let end = HEADER + word(12)? as usize;
        let payload = bytes.get(HEADER..end)?.to_vec();
        let message = Message {
            kind: word(0)?,
            req_id: word(4)?,
            tx_id: word(8)?,
            payload,
        };
        bytes.drain(..end);
        Some(message)
    }

    /// Removes what may differ: the generation in a reply to DIRECTORY_PART.
    pub fn normal(mut self) -> Message {
        if self.kind == DIRECTORY_PART
            && let Some(nul) = self.payload.iter().position(|&byte| byte == 0)
        {
            assert!(self.payload[..nul].iter().all(u8::is_ascii_digit));
            self.payload.drain(..nul);
        }
        self
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Message {
            kind,
            req_id,
            tx_id,
            payload,
        } = self;
        let shown = &payload[..payload.len().min(120)];
        write!(
            f,
            "{kind}(req {req_id}, tx {tx_id}, {} bytes: {})",
            payload.len(),
            shown.escape_ascii()
        )
    }
}
