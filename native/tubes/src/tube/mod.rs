//! A tube, as its two halves in the store describe it, and the problems found in them.

pub mod half;
pub mod stage;

use std::time::{Duration, SystemTime};

use crate::path::{Domid, Id, Role, number, service};
use crate::text;
use half::{Half, TIP_KEYS};
use stage::Stage;

/// Maximum length of an escaped service: 64 bytes, of which each may need four characters.
const SERVICE_MAX: usize = 256;

/// A problem of a tube.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The node concerned.
    pub key: &'static str,
    /// A description, escaped.
    pub text: String,
}

/// A tube, as read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tube {
    /// Its identity, from the paths of its halves, never from their values.
    pub id: Id,
    /// The nock's half, which only the nock can write.
    pub nock: Half,
    /// The tip's half, which the nock can write too.
    pub tip: Half,
    /// Those of its two domains that do not exist.
    pub gone: Vec<Domid>,
}

impl Tube {
    /// The half with this role.
    pub fn half(&self, role: Role) -> &Half {
        match role {
            Role::Nock => &self.nock,
            Role::Tip => &self.tip,
        }
    }

    /// Whether neither half exists.
    pub fn absent(&self) -> bool {
        self.nock.missing() && self.tip.missing()
    }

    /// The requested service, escaped for a column.
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

    /// The sizes of its rings for a column: one size if they are equal, otherwise tx and rx.
    pub fn rings(&self) -> String {
        let size = |key| match self.tip.get(key).and_then(number) {
            Some(bytes) => text::size(bytes),
            None => "-".into(),
        };
        let (tx, rx) = (size("tx-ring-bytes"), size("rx-ring-bytes"));
        if tx == rx { tx } else { format!("{tx}/{rx}") }
    }

    /// Its age according to the tip; zero if the tip's clock is ahead.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        let opened = number(self.tip.get("opened")?)?;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        Some(Duration::from_secs(now.saturating_sub(opened.into())))
    }

    /// The nonce of the attempt: the nock's, or else the tip's.
    pub fn nonce(&self) -> Option<&str> {
        self.nock.get("nonce").or_else(|| self.tip.get("nonce"))
    }

    /// Its stage.
    pub fn stage(&self) -> Stage {
        if self.gone.is_empty() {
            Stage::of(&self.nock, &self.tip)
        } else {
            Stage::Stale
        }
    }

    /// All its problems.
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
                && self.stage() != Stage::Requested
            {
                add(key, text.into());
            }
        }
        for (half, key, place) in [
            (&self.nock, "tip", self.id.tip_node()),
            (&self.tip, "nock", self.id.nock_node()),
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
            if let Half::Here(_, unknown @ 1..) = half {
                add(
                    "",
                    format!("{unknown} foreign nodes in the {}'s half", role.word()),
                );
            }
        }
        found
    }
}
