//! Paths of tubes in the store, and what they identify.
//!
//! A domain can write any value into its own directory, so values prove nothing about other
//! domains. The identity of a tube therefore always comes from paths, never from values.

/// The number of a domain.
pub type Domid = u16;

/// The parent of all domains.
pub const DOMAINS: &str = "/local/domain";

/// Domids from 0x7FF0 are reserved.
const DOMID_MAX: u32 = 0x7FEF;

/// Identifies a tube.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// The domain that opened it.
    pub nock: Domid,
    /// The domain that accepts it.
    pub tip: Domid,
    /// Its number among the tubes from this nock to this tip.
    pub tid: u32,
}

impl Id {
    /// The nock's node; only the nock's domain can write there.
    pub fn nock_node(&self) -> String {
        format!("{}/{}/{}", root(self.nock, Role::Nock), self.tip, self.tid)
    }

    /// The tip's node, in the inbox where the tip lets the nock write.
    pub fn tip_node(&self) -> String {
        format!("{}/{}/{}", root(self.tip, Role::Tip), self.nock, self.tid)
    }

    /// The domain of one side.
    pub fn domid(&self, role: Role) -> Domid {
        match role {
            Role::Nock => self.nock,
            Role::Tip => self.tip,
        }
    }

    /// The node where one side publishes its counters.
    pub fn stats(&self, role: Role) -> String {
        let (me, peer) = match role {
            Role::Nock => (self.nock, self.tip),
            Role::Tip => (self.tip, self.nock),
        };
        format!("{}/{}/{peer}/{}", stats(me), role.word(), self.tid)
    }
}

/// A side of a tube.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It opens.
    Nock,
    /// It accepts.
    Tip,
}

impl Role {
    /// Its name in paths.
    pub fn word(self) -> &'static str {
        match self {
            Role::Nock => "nock",
            Role::Tip => "tip",
        }
    }
}

/// The directory of a domain.
pub fn domain(domid: Domid) -> String {
    format!("{DOMAINS}/{domid}")
}

/// The parent of a domain's nodes in one role, by peer.
pub fn root(domid: Domid, role: Role) -> String {
    format!("{DOMAINS}/{domid}/data/{}", role.word())
}

/// The service directory of a domain. It exists while the domain accepts tubes.
pub fn service_directory(domid: Domid) -> String {
    format!("{DOMAINS}/{domid}/data/tube")
}

/// The directory where a domain publishes counters while somebody holds a lease.
pub fn stats(domid: Domid) -> String {
    format!("{DOMAINS}/{domid}/data/stats")
}

/// The node that holds the lease on a domain's counters.
pub fn stats_watch(domid: Domid) -> String {
    stats(domid) + "/watch"
}

/// What a change at some path affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// This tube.
    Tube(Id),
    /// A parent of tubes: any of them may have appeared or vanished.
    Above,
    /// No tube.
    Other,
}

/// Classifies a path. It is strict: a path that no VM would write belongs to no tube.
pub fn place(path: &str) -> Place {
    let Some(below) = path.strip_prefix(DOMAINS) else {
        return if path.starts_with('@') {
            Place::Above
        } else {
            Place::Other
        };
    };
    let names: Vec<&str> = below.split('/').skip(1).collect();
    let Some(owner) = names.first() else {
        return Place::Above;
    };
    let Some(owner) = domid(owner) else {
        return Place::Other;
    };
    match names[1..] {
        [] | ["data"] | ["data", "nock" | "tip"] => Place::Above,
        ["data", "nock" | "tip", peer] => domid(peer).map_or(Place::Other, |_| Place::Above),
        ["data", side @ ("nock" | "tip"), peer, tid, ..] => match (domid(peer), number(tid)) {
            (Some(peer), Some(tid)) if side == "nock" => Place::Tube(Id {
                nock: owner,
                tip: peer,
                tid,
            }),
            (Some(peer), Some(tid)) => Place::Tube(Id {
                nock: peer,
                tip: owner,
                tid,
            }),
            _ => Place::Other,
        },
        _ => Place::Other,
    }
}

/// Parses a decimal number of 32 bits without a sign or leading zeros.
pub fn number(text: &str) -> Option<u32> {
    let n: u32 = text.parse().ok()?;
    (n.to_string() == text).then_some(n)
}

/// Parses the number of a domain.
pub fn domid(text: &str) -> Option<Domid> {
    number(text)
        .filter(|n| *n <= DOMID_MAX)
        .and_then(|n| n.try_into().ok())
}

/// Decodes a service from a node name: letters, digits and `-` stand for themselves, any other byte
/// is `_` and two hex digits. None if no VM would write it that way.
pub fn service(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        rest = more;
        match first {
            b'_' => {
                let (hex, after) = rest.split_at_checked(2)?;
                if !hex.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
                    return None;
                }
                bytes.push(u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok()?);
                rest = after;
            }
            c if c.is_ascii_alphanumeric() || c == b'-' => bytes.push(c),
            _ => return None,
        }
    }
    (1..=64).contains(&bytes.len()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_classified_strictly() {
        let id = Id {
            nock: 7,
            tip: 5,
            tid: 3,
        };
        assert_eq!(place(&id.nock_node()), Place::Tube(id));
        assert_eq!(place(&format!("{}/state", id.tip_node())), Place::Tube(id));
        assert_eq!(id.stats(Role::Nock), "/local/domain/7/data/stats/nock/5/3");
        assert_eq!(id.stats(Role::Tip), "/local/domain/5/data/stats/tip/7/3");
        for above in [
            "/local/domain",
            "/local/domain/7",
            "/local/domain/7/data",
            "/local/domain/7/data/nock",
            "/local/domain/7/data/tip/5",
            "@releaseDomain",
        ] {
            assert_eq!(place(above), Place::Above, "{above}");
        }
        for other in [
            "/vm/7",
            "/local/domain/07/data/nock",
            "/local/domain/7/device/vif/0",
            "/local/domain/7/data/nock/05/1",
            "/local/domain/7/data/nock/5/+1",
            "/local/domain/40000/data/nock/5/1",
            "/local/domain/7/data/tube/echo",
            "/local/domain/7/data/stats/nock/5/3",
        ] {
            assert_eq!(place(other), Place::Other, "{other}");
        }
    }

    #[test]
    fn service_names_are_decoded_strictly() {
        assert_eq!(service("chat_2ev2"), Some(b"chat.v2".to_vec()));
        assert_eq!(service("_76ersion"), Some(b"version".to_vec()));
        for bad in ["", "a b", "a_2", "a_2E", "a_+f", "a.b"] {
            assert_eq!(service(bad), None, "{bad}");
        }
        assert_eq!(service(&"x".repeat(65)), None);
    }
}
