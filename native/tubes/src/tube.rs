//! One tube as its two halves in the store tell it, and where they disagree.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::path::{Domid, Id, Role, number, service};
use crate::text;

/// What a VM of ours writes into the nock's half.
pub const NOCK_KEYS: [&str; 6] = ["state", "version", "nonce", "error", "tip", "service"];

/// What a VM of ours writes into the tip's half.
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
    /// Text, of a stranger.
    Text(String),
    /// Not UTF-8.
    Binary,
    /// We may not read it.
    Denied,
}

/// One half. Nodes that are not there are not in the map.
pub type Nodes = BTreeMap<&'static str, Value>;

/// What there is of one half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Half {
    /// No directory.
    Missing,
    /// A directory that we may not list.
    Denied,
    /// Its nodes, and how many others lie there that no VM of ours writes.
    Here(Nodes, usize),
}

impl Half {
    /// A value, if it is text.
    pub fn get(&self, key: &str) -> Option<&str> {
        match self {
            Half::Here(nodes, _) => match nodes.get(key) {
                Some(Value::Text(text)) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// A value for people, `-` if there is none.
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

    /// XenbusState, one digit.
    pub fn state(&self) -> Option<u8> {
        let n: u8 = number(self.get("state")?)?.try_into().ok()?;
        (usize::from(n) < STATES.len()).then_some(n)
    }

    /// Whether it is known to be absent.
    pub fn missing(&self) -> bool {
        *self == Half::Missing
    }
}

/// Names of the XenbusStates, as in Xen's headers.
pub const STATES: [&str; 9] = [
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

/// Where a tube stands, of both halves together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Asked for; no answer yet.
    Knocking,
    /// The tip prepares rings.
    Accepting,
    /// The tip has said where the rings are.
    Offered,
    /// The nock has mapped them.
    Connecting,
    /// Both say so.
    Connected,
    /// One side closes.
    Closing,
    /// Both have closed.
    Closed,
    /// The tip said no.
    Refused,
    /// Only one half is there although both should be.
    OneSided,
    /// The domain of the other half does not exist.
    Stale,
    /// The halves contradict each other, or hold what no VM of ours writes.
    Broken,
}

impl Stage {
    /// Its word for people and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Knocking => "knocking",
            Stage::Accepting => "accepting",
            Stage::Offered => "offered",
            Stage::Connecting => "connecting",
            Stage::Connected => "connected",
            Stage::Closing => "closing",
            Stage::Closed => "closed",
            Stage::Refused => "refused",
            Stage::OneSided => "one-sided",
            Stage::Stale => "stale",
            Stage::Broken => "broken",
        }
    }
}

/// A service has 64 bytes at most, of which each may have to be escaped.
const SERVICE_MAX: usize = 256;

/// Something wrong with a tube.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The node that it is about.
    pub key: &'static str,
    /// What it is, fit to be shown.
    pub text: String,
}

/// A tube, as read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tube {
    /// Which one: from the directories that its halves lie in, never from their values.
    pub id: Id,
    /// What the nock says. Nobody else can write there.
    pub nock: Half,
    /// What stands at the tip. The nock can write there too.
    pub tip: Half,
    /// Of its two domains, those that do not exist.
    pub gone: Vec<Domid>,
}

impl Tube {
    /// One of its halves.
    pub fn half(&self, role: Role) -> &Half {
        match role {
            Role::Nock => &self.nock,
            Role::Tip => &self.tip,
        }
    }

    /// Whether nothing of it is left.
    pub fn absent(&self) -> bool {
        self.nock.missing() && self.tip.missing()
    }

    /// The service asked for, fit to be shown in a column.
    pub fn service(&self) -> String {
        match self.nock.get("service") {
            None => "-".into(),
            Some(name) => {
                let shown = match service(name) {
                    Some(bytes) => text::escape_bytes(&bytes).replace(' ', "\\x20"),
                    None => text::word(name),
                };
                text::cut(&shown, SERVICE_MAX)
            }
        }
    }

    /// Sizes of its rings for a column: one if they are the same, else tx and rx.
    pub fn rings(&self) -> String {
        let size = |key| match self.tip.get(key).and_then(number) {
            Some(bytes) => text::size(bytes),
            None => "-".into(),
        };
        let (tx, rx) = (size("tx-ring-bytes"), size("rx-ring-bytes"));
        if tx == rx { tx } else { format!("{tx}/{rx}") }
    }

    /// For how long it has been there, as the tip says; less than nothing is nothing.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        let opened = number(self.tip.get("opened")?)?;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        Some(Duration::from_secs(now.saturating_sub(opened.into())))
    }

    /// Which attempt: the nock's word, else the one at the tip.
    pub fn nonce(&self) -> Option<&str> {
        self.nock.get("nonce").or_else(|| self.tip.get("nonce"))
    }

    /// Where it stands.
    pub fn stage(&self) -> Stage {
        if !self.gone.is_empty() {
            return Stage::Stale;
        }
        let (nock, tip) = (self.nock.state(), self.tip.state());
        // Until the tip has written its own nonce the values there are an older attempt's, or none.
        let ours = self.tip.get("nonce").is_none() || self.tip.get("nonce") == self.nonce();
        match (nock, tip) {
            (Some(2), None) => Stage::Knocking,
            (Some(2), Some(_)) if !ours => Stage::Knocking,
            (_, Some(6)) if self.tip.get("error").is_some() => Stage::Refused,
            (Some(6), Some(6)) => Stage::Closed,
            (Some(5 | 6), _) | (Some(2 | 4), Some(5 | 6)) => Stage::Closing,
            (Some(2), Some(1)) => Stage::Accepting,
            (Some(2), Some(3)) => Stage::Offered,
            (Some(4), Some(3)) if ours => Stage::Connecting,
            (Some(4), Some(4)) if ours => Stage::Connected,
            // A half that may not be read is not a half that is missing.
            (Some(4), None) if self.tip == Half::Denied => Stage::Connected,
            (None, Some(4)) if self.nock == Half::Denied => Stage::Connected,
            _ if self.nock.missing() || self.tip.missing() => Stage::OneSided,
            _ => Stage::Broken,
        }
    }

    /// All that is wrong with it.
    pub fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut add = |key, text: String| found.push(Finding { key, text });
        for domid in &self.gone {
            add("state", format!("domain {domid} does not exist"));
        }
        match self.stage() {
            Stage::OneSided if self.nock.missing() => add("state", "the nock has no half".into()),
            Stage::OneSided => add("state", "the tip has no half".into()),
            Stage::Broken => add("state", "these states do not go together".into()),
            _ => {}
        }
        for (key, text) in [
            ("nonce", "they mean different attempts"),
            ("version", "they speak different versions"),
        ] {
            if let (Some(nock), Some(tip)) = (self.nock.get(key), self.tip.get(key))
                && nock != tip
                && self.stage() != Stage::Knocking
            {
                add(key, text.into());
            }
        }
        for (half, key, place) in [
            (&self.nock, "tip", self.id.entry()),
            (&self.tip, "nock", self.id.knock()),
        ] {
            if half.get(key).is_some_and(|path| path != place) {
                add(key, format!("`{key}` names another place than {place}"));
            }
        }
        for key in &TIP_KEYS[5..] {
            if self.tip.get(key).is_some_and(|text| number(text).is_none()) {
                add(key, format!("`{key}` is no number"));
            }
        }
        if self
            .nock
            .get("service")
            .is_some_and(|name| service(name).is_none())
        {
            add(
                "service",
                "`service` is not written as a VM writes it".into(),
            );
        }
        for (half, role) in [(&self.nock, Role::Nock), (&self.tip, Role::Tip)] {
            if let Half::Here(_, strange @ 1..) = half {
                add(
                    "",
                    format!("{strange} foreign nodes in the {}'s half", role.word()),
                );
            }
        }
        found
    }
}
