//! Which domains there are, whose they are, and how many descriptors each may cost us.

use std::collections::BTreeMap;

use tube_platform::{DOMID_MAX, Domid};

use crate::owner::Owner;
use crate::socket_kind::SocketKind;

/// Descriptors that the hub keeps for itself: its own files, newcomers, and what one message
/// can carry, which has to be received to be refused.
pub const RESERVE: usize = 512;

/// No domain gets more than this part of all descriptors, so that a few that go mad leave
/// room for the others.
const PARTS: usize = 8;

/// More than this no domain needs: it is 1,000 tubes.
const ENOUGH: usize = 8192;

/// Why a domain cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody is that domain already.
    Taken(Domid),
    /// All are taken.
    NoneFree,
    /// That socket is for one domain, and it is not the one asked for.
    WrongSocket(Domid),
}

/// The table of domains.
#[derive(Debug)]
pub struct Domains {
    known: BTreeMap<Domid, Domain>,
    living: usize,
    per_domain: usize,
    room: usize,
}

#[derive(Debug, Default)]
struct Domain {
    owner: Option<Owner>,
    /// Has a directory also while nobody is that domain.
    kept: bool,
    lives: bool,
    descriptors: usize,
    connections: BTreeMap<SocketKind, usize>,
}

impl Domains {
    /// Domain 0 and those that are kept for somebody, all unclaimed; `limit` is the number of
    /// descriptors that the process can have.
    pub fn new(kept: &[(Domid, Owner)], limit: usize) -> Domains {
        let room = limit.saturating_sub(RESERVE);
        let per_domain = (room / PARTS).min(ENOUGH);
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
            living: 0,
            per_domain,
            room,
        }
    }

    /// The domain that a claimant gets: what it asks for, else the one that its bound belongs
    /// to, else the lowest from 1 that is neither taken nor kept for somebody.
    ///
    /// # Errors
    /// A refusal.
    pub fn choose(&self, asked: Option<Domid>, bound: Option<Domid>) -> Result<Domid, Refusal> {
        let domid = match (asked, bound) {
            (Some(asked), Some(bound)) if asked != bound => {
                return Err(Refusal::WrongSocket(bound));
            }
            (Some(domid), _) | (None, Some(domid)) => domid,
            (None, None) => {
                return (1..=DOMID_MAX)
                    .find(|domid| !self.known.contains_key(domid))
                    .ok_or(Refusal::NoneFree);
            }
        };
        if self.lives(domid) {
            Err(Refusal::Taken(domid))
        } else {
            Ok(domid)
        }
    }

    /// Somebody is now that domain, by a connection that is charged to it. False if there is
    /// no room for that.
    pub fn claim(&mut self, domid: Domid) -> bool {
        let charged = self.charge(domid, 1);
        if charged && let Some(domain) = self.known.get_mut(&domid) {
            domain.lives = true;
            self.living += 1;
        }
        charged
    }

    /// Nobody is that domain any more. What else it is charged for is refunded as it goes.
    pub fn end(&mut self, domid: Domid) {
        if let Some(domain) = self.known.get_mut(&domid).filter(|domain| domain.lives) {
            domain.lives = false;
            self.living -= 1;
            self.refund(domid, 1);
        }
    }

    /// Whether somebody is that domain.
    pub fn lives(&self, domid: Domid) -> bool {
        self.known.get(&domid).is_some_and(|domain| domain.lives)
    }

    /// How many domains are alive.
    pub fn living(&self) -> usize {
        self.living
    }

    /// Whether its directory stays when it dies.
    pub fn kept(&self, domid: Domid) -> bool {
        self.known.get(&domid).is_some_and(|domain| domain.kept)
    }

    /// Those whose directory stays.
    pub fn all_kept(&self) -> Vec<Domid> {
        self.known
            .iter()
            .filter(|(_, domain)| domain.kept)
            .map(|(&domid, _)| domid)
            .collect()
    }

    /// Whose it is, if it is kept for somebody.
    pub fn owner(&self, domid: Domid) -> Option<Owner> {
        self.known.get(&domid)?.owner
    }

    /// Counts descriptors that are held for a domain. False, and nothing counted, if that is
    /// more than it may have or more than there is.
    pub fn charge(&mut self, domid: Domid, descriptors: usize) -> bool {
        let domain = self.known.entry(domid).or_default();
        let fits = domain.descriptors + descriptors <= self.per_domain && descriptors <= self.room;
        if fits {
            domain.descriptors += descriptors;
            self.room -= descriptors;
        } else {
            self.tidy(domid);
        }
        fits
    }

    /// Descriptors charged for a domain are closed.
    pub fn refund(&mut self, domid: Domid, descriptors: usize) {
        if let Some(domain) = self.known.get_mut(&domid) {
            domain.descriptors -= descriptors;
            self.room += descriptors;
        }
        self.tidy(domid);
    }

    /// Counts a connection to a domain's bound, with its descriptor. False if there are too
    /// many.
    pub fn connect(&mut self, domid: Domid, kind: SocketKind) -> bool {
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

    /// A connection counted by [`Domains::connect`] is closed.
    pub fn disconnect(&mut self, domid: Domid, kind: SocketKind) {
        if let Some(open) = self
            .known
            .get_mut(&domid)
            .and_then(|domain| domain.connections.get_mut(&kind))
        {
            *open -= 1;
        }
        self.refund(domid, 1);
    }

    /// Forgets a domain that is nothing but a number.
    fn tidy(&mut self, domid: Domid) {
        if self
            .known
            .get(&domid)
            .is_some_and(|domain| !domain.kept && !domain.lives && domain.descriptors == 0)
        {
            self.known.remove(&domid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains() -> Domains {
        Domains::new(&[(2, Owner { uid: 7, gid: 7 })], RESERVE + 80)
    }

    #[test]
    fn the_lowest_free_is_neither_taken_nor_kept() {
        let mut domains = domains();
        assert_eq!(domains.choose(None, None), Ok(1));
        assert!(domains.claim(1));
        assert_eq!(domains.choose(None, None), Ok(3));
        assert_eq!(domains.choose(Some(1), None), Err(Refusal::Taken(1)));
        assert_eq!(domains.choose(Some(0), None), Ok(0));
        assert_eq!(domains.living(), 1);
        domains.end(1);
        assert_eq!(domains.choose(None, None), Ok(1));
        assert_eq!(domains.living(), 0);
    }

    #[test]
    fn a_domains_own_door_is_for_it_alone() {
        let mut domains = domains();
        assert_eq!(domains.choose(None, Some(2)), Ok(2));
        assert_eq!(domains.choose(Some(2), Some(2)), Ok(2));
        assert_eq!(
            domains.choose(Some(3), Some(2)),
            Err(Refusal::WrongSocket(2))
        );
        assert!(domains.claim(2));
        assert_eq!(domains.choose(None, Some(2)), Err(Refusal::Taken(2)));
        domains.end(2);
        assert!(domains.kept(2) && domains.owner(2).is_some());
    }

    #[test]
    fn every_domid_can_be_used_up() {
        let mut domains = Domains::new(&[], 1 << 16);
        for domid in 1..=DOMID_MAX {
            assert!(domains.claim(domid));
        }
        assert_eq!(domains.choose(None, None), Err(Refusal::NoneFree));
    }

    #[test]
    fn one_domain_leaves_room_for_the_others() {
        let mut domains = domains();
        assert!(domains.charge(1, 10));
        assert!(!domains.charge(1, 1));
        for domid in 2..9 {
            assert!(domains.charge(domid, 10));
        }
        // All of it is in use; what is given back can be had again.
        assert!(!domains.charge(9, 1));
        domains.refund(1, 4);
        assert!(domains.charge(9, 4));
        assert!(!domains.charge(1, 1));
    }

    #[test]
    fn connections_are_limited_per_door() {
        let mut domains = Domains::new(&[], 4096);
        for _ in 0..SocketKind::Grants.max_connections() {
            assert!(domains.connect(1, SocketKind::Grants));
        }
        assert!(!domains.connect(1, SocketKind::Grants));
        assert!(domains.connect(1, SocketKind::Evtchn));
        domains.disconnect(1, SocketKind::Grants);
        assert!(domains.connect(1, SocketKind::Grants));
    }
}
