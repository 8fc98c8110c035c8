//! One half of a tube: the nodes that one side has written.

use std::collections::BTreeMap;

use crate::path::number;
use crate::text;

/// The nodes that a VM writes into the nock's half.
pub const NOCK_KEYS: [&str; 6] = ["state", "version", "nonce", "error", "tip", "service"];

/// The nodes that a VM writes into the tip's half.
pub const TIP_KEYS: [&str; 11] = [
    "state",
    "version",
    "nonce",
    "error",
    "nock",
    "tx-ring-ref",
    "rx-ring-ref",
    "event-channel",
    "tx-ring-bytes",
    "rx-ring-bytes",
    "opened",
];

/// The value of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, not escaped.
    Text(String),
    /// It is not UTF-8.
    Binary,
    /// We may not read it.
    Denied,
}

/// The nodes of a half that exist.
pub type Nodes = BTreeMap<&'static str, Value>;

/// One half of a tube.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Half {
    /// Its directory does not exist.
    Missing,
    /// We may not list its directory.
    Denied,
    /// Its nodes, and the number of unknown nodes beside them.
    Here(Nodes, usize),
}

impl Half {
    /// The value of a node, if it is text.
    pub fn get(&self, key: &str) -> Option<&str> {
        match self {
            Half::Here(nodes, _) => match nodes.get(key) {
                Some(Value::Text(text)) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value of a node for people, or `-`.
    pub fn shown(&self, key: &str) -> String {
        match self {
            Half::Missing => "-".into(),
            Half::Denied => "(not readable)".into(),
            Half::Here(nodes, _) => match nodes.get(key) {
                None => "-".into(),
                Some(Value::Text(value)) if key == "state" => match self.state() {
                    Some(n) => format!("{n} {}", STATES[usize::from(n)]),
                    None => text::value(value),
                },
                Some(Value::Text(value)) if key == "opened" => match number(value) {
                    Some(seconds) => format!("{value} {}", text::date(seconds.into())),
                    None => text::value(value),
                },
                Some(Value::Text(value)) => text::value(value),
                Some(Value::Binary) => "(not text)".into(),
                Some(Value::Denied) => "(not readable)".into(),
            },
        }
    }

    /// Its state, if that is a XenbusState.
    pub fn state(&self) -> Option<u8> {
        let n: u8 = number(self.get("state")?)?.try_into().ok()?;
        (usize::from(n) < STATES.len()).then_some(n)
    }

    /// Whether it certainly does not exist.
    pub fn missing(&self) -> bool {
        *self == Half::Missing
    }
}

/// Names of the values of XenbusState, as in Xen's headers.
const STATES: [&str; 9] = [
    "Unknown",
    "Initialising",
    "InitWait",
    "Initialised",
    "Connected",
    "Closing",
    "Closed",
    "Reconfiguring",
    "Reconfigured",
];
