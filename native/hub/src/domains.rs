//! The table of domains: which exist, their owners, and how many descriptors each costs the hub.

use std::collections::BTreeMap;

use tube_platform::{DOMID_MAX, Domid};

use crate::owner::Owner;
use crate::socket_kind::SocketKind;

/// Descriptors that the hub keeps for itself: its own files, unidentified connections, and the
/// descriptors that one message can carry, which it has to receive before it can refuse them.
pub const RESERVED_DESCRIPTORS: usize = 512;

/// One domain gets at most this fraction (one in so many) of all descriptors, so that a few
/// misbehaving domains leave room for the others.
const DOMAIN_FRACTION: usize = 8;

/// Descriptors that a domain gets at most: enough for 1,000 tubes.
const DOMAIN_MAX: usize = 8192;

/// Refuses a domain to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimError {
    /// Another process is that domain already.
    Taken(Domid),
    /// All domids are taken.
    NoneFree,
    /// The client requested another domain than the one that its socket is bound to.
    WrongSocket(Domid),
}

/// The table of domains.
#[derive(Debug)]
pub struct Domains {
    known: BTreeMap<Domid, Domain>,
    alive: usize,
    max_per_domain: usize,
    /// Descriptors not charged to any domain.
    free: usize,
}

#[derive(Debug, Default)]
struct Domain {
    owner: Option<Owner>,
    /// Its directory stays while the domain is not alive.
    kept: bool,
    alive: bool,
    descriptors: usize,
    connections: BTreeMap<SocketKind, usize>,
}

impl Domains {
    /// Domain 0 and the domains `kept` for an owner, none of them alive. `limit` is the process's
    /// limit of open descriptors.
    pub fn new(kept: &[(Domid, Owner)], limit: usize) -> Domains {
        let free = limit.saturating_sub(RESERVED_DESCRIPTORS);
        let max_per_domain = (free / DOMAIN_FRACTION).min(DOMAIN_MAX);
        let mut known = BTreeMap::from([(
            0,
            Domain {
                kept: true,
                ..Domain::default()
            },
        )]);
        for &(domid, owner) in kept {
            known.insert(
                domid,
                Domain {
                    owner: Some(owner),
                    kept: true,
                    ..Domain::default()
                },
            );
        }
        Domains {
            known,
            alive: 0,
            max_per_domain,
            free,
        }
    }

    /// The domain that a client gets: the requested one, else the one that its socket is `bound`
    /// to, else the lowest from 1 that is neither taken nor kept for an owner.
    ///
    /// # Errors
    /// Why it gets none.
    pub fn choose(
        &self,
        requested: Option<Domid>,
        bound: Option<Domid>,
    ) -> Result<Domid, ClaimError> {
        let domid = match (requested, bound) {
            (Some(requested), Some(bound)) if requested != bound => {
                return Err(ClaimError::WrongSocket(bound));
            }
            (Some(domid), _) | (None, Some(domid)) => domid,
            (None, None) => {
                return (1..=DOMID_MAX)
                    .find(|domid| !self.known.contains_key(domid))
                    .ok_or(ClaimError::NoneFree);
            }
        };
        if self.is_alive(domid) {
            Err(ClaimError::Taken(domid))
        } else {
            Ok(domid)
        }
    }

    /// Makes a domain alive and charges it for its control connection. False if there are not
    /// enough descriptors for that.
    pub fn claim(&mut self, domid: Domid) -> bool {
        let charged = self.charge(domid, 1);
        if charged && let Some(domain) = self.known.get_mut(&domid) {
            domain.alive = true;
            self.alive += 1;
        }
        charged
    }

    /// Ends a domain and refunds its control connection. The caller refunds the rest.
    pub fn end(&mut self, domid: Domid) {
        if let Some(domain) = self.known.get_mut(&domid).filter(|domain| domain.alive) {
            domain.alive = false;
            self.alive -= 1;
            self.refund(domid, 1);
        }
    }

    /// Whether a process is that domain.
    pub fn is_alive(&self, domid: Domid) -> bool {
        self.known.get(&domid).is_some_and(|domain| domain.alive)
    }

    /// Number of domains alive.
    pub fn alive(&self) -> usize {
        self.alive
    }

    /// Whether the domain's directory stays when the domain ends.
    pub fn is_kept(&self, domid: Domid) -> bool {
        self.known.get(&domid).is_some_and(|domain| domain.kept)
    }

    /// The domains whose directory stays when they end.
    pub fn kept(&self) -> Vec<Domid> {
        self.known
            .iter()
            .filter(|(_, domain)| domain.kept)
            .map(|(&domid, _)| domid)
            .collect()
    }

    /// The owner of a domain that is kept for one.
    pub fn owner(&self, domid: Domid) -> Option<Owner> {
        self.known.get(&domid)?.owner
    }

    /// Charges a domain for descriptors that the hub holds for it. False, and nothing charged, if
    /// that exceeds the domain's limit or what is free.
    pub fn charge(&mut self, domid: Domid, descriptors: usize) -> bool {
        let domain = self.known.entry(domid).or_default();
        let fits =
            domain.descriptors + descriptors <= self.max_per_domain && descriptors <= self.free;
        if fits {
            domain.descriptors += descriptors;
            self.free -= descriptors;
        } else {
            self.forget_if_unused(domid);
        }
        fits
    }

    /// Refunds descriptors that were charged to a domain and are closed.
    pub fn refund(&mut self, domid: Domid, descriptors: usize) {
        if let Some(domain) = self.known.get_mut(&domid) {
            domain.descriptors -= descriptors;
            self.free += descriptors;
        }
        self.forget_if_unused(domid);
    }

    /// Counts and charges a connection to a domain's socket. False if there are too many.
    pub fn add_connection(&mut self, domid: Domid, kind: SocketKind) -> bool {
        let open = self
            .known
            .get(&domid)
            .and_then(|domain| domain.connections.get(&kind))
            .copied();
        if open.unwrap_or(0) >= kind.max_connections() || !self.charge(domid, 1) {
            return false;
        }
        let domain = self.known.entry(domid).or_default();
        *domain.connections.entry(kind).or_default() += 1;
        true
    }

    /// Undoes [`Domains::add_connection`] when the connection closes.
    pub fn remove_connection(&mut self, domid: Domid, kind: SocketKind) {
        if let Some(open) = self
            .known
            .get_mut(&domid)
            .and_then(|domain| domain.connections.get_mut(&kind))
        {
            *open -= 1;
        }
        self.refund(domid, 1);
    }

    fn forget_if_unused(&mut self, domid: Domid) {
        if self
            .known
            .get(&domid)
            .is_some_and(|domain| !domain.kept && !domain.alive && domain.descriptors == 0)
        {
            self.known.remove(&domid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains() -> Domains {
        Domains::new(&[(2, Owner { uid: 7, gid: 7 })], RESERVED_DESCRIPTORS + 80)
    }

    #[test]
    fn the_lowest_free_domid_is_neither_taken_nor_kept() {
        let mut domains = domains();
        assert_eq!(domains.choose(None, None), Ok(1));
        assert!(domains.claim(1));
        assert_eq!(domains.choose(None, None), Ok(3));
        assert_eq!(domains.choose(Some(1), None), Err(ClaimError::Taken(1)));
        assert_eq!(domains.choose(Some(0), None), Ok(0));
        assert_eq!(domains.alive(), 1);
        domains.end(1);
        assert_eq!(domains.choose(None, None), Ok(1));
        assert_eq!(domains.alive(), 0);
    }

    #[test]
    fn a_bound_socket_serves_only_its_domain() {
        let mut domains = domains();
        assert_eq!(domains.choose(None, Some(2)), Ok(2));
        assert_eq!(domains.choose(Some(2), Some(2)), Ok(2));
        assert_eq!(
            domains.choose(Some(3), Some(2)),
            Err(ClaimError::WrongSocket(2))
        );
        assert!(domains.claim(2));
        assert_eq!(domains.choose(None, Some(2)), Err(ClaimError::Taken(2)));
        domains.end(2);
        assert!(domains.is_kept(2) && domains.owner(2).is_some());
    }

    #[test]
    fn all_domids_can_be_taken() {
        let mut domains = Domains::new(&[], 1 << 16);
        for domid in 1..=DOMID_MAX {
            assert!(domains.claim(domid));
        }
        assert_eq!(domains.choose(None, None), Err(ClaimError::NoneFree));
    }

    #[test]
    fn one_domain_leaves_room_for_the_others() {
        let mut domains = domains();
        assert!(domains.charge(1, 10));
        assert!(!domains.charge(1, 1));
        for domid in 2..9 {
            assert!(domains.charge(domid, 10));
        }
        // All descriptors are in use; refunded ones can be charged again.
        assert!(!domains.charge(9, 1));
        domains.refund(1, 4);
        assert!(domains.charge(9, 4));
        assert!(!domains.charge(1, 1));
    }

    #[test]
    fn connections_are_limited_per_socket() {
        let mut domains = Domains::new(&[], 4096);
        for _ in 0..SocketKind::Grants.max_connections() {
            assert!(domains.add_connection(1, SocketKind::Grants));
        }
        assert!(!domains.add_connection(1, SocketKind::Grants));
        assert!(domains.add_connection(1, SocketKind::Evtchn));
        domains.remove_connection(1, SocketKind::Grants);
        assert!(domains.add_connection(1, SocketKind::Grants));
    }
}
