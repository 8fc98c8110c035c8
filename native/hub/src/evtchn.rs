//! Event channels that wait for their second end.
//!
//! The hub makes both pipes, each end non-blocking, so neither domain has a description that
//! it could make blocking under the other. Once the channel is bound the hub holds nothing of
//! it: an end that closes is seen as end of file by the other, with or without a hub.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tube_platform::Domid;

/// What one domain gets of a channel.
#[derive(Debug)]
pub struct End {
    /// Its own number for it.
    pub port: u32,
    /// Where the peer's bells arrive.
    pub read: OwnedFd,
    /// Where it rings the peer.
    pub write: OwnedFd,
}

/// All channels of which one end waits to be bound.
#[derive(Debug, Default)]
pub struct Channels {
    unbound: HashMap<(Domid, u32), Unbound>,
    last: HashMap<Domid, u32>,
}

#[derive(Debug)]
struct Unbound {
    peer: Domid,
    read: OwnedFd,
    write: OwnedFd,
}

/// Descriptors that the hub holds for an unbound channel.
pub const DESCRIPTORS: usize = 2;

impl Channels {
    /// A new channel that `peer` may bind.
    ///
    /// # Errors
    /// Those of making pipes.
    pub fn allocate(&mut self, domid: Domid, peer: Domid) -> Result<End, Errno> {
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (read, their_write) = pipe_with(flags)?;
        let (their_read, write) = pipe_with(flags)?;
        let port = self.number(domid);
        self.unbound.insert(
            (domid, port),
            Unbound {
                peer,
                read: their_read,
                write: their_write,
            },
        );
        Ok(End { port, read, write })
    }

    /// The second end of a channel that `remote` allocated for `domid`. It can be had once.
    ///
    /// # Errors
    /// `NOENT` if no such port waits, `ACCESS` if it waits for somebody else.
    pub fn bind(&mut self, domid: Domid, remote: Domid, remote_port: u32) -> Result<End, Errno> {
        let key = (remote, remote_port);
        match self.unbound.get(&key) {
            None => return Err(Errno::NOENT),
            Some(unbound) if unbound.peer != domid => return Err(Errno::ACCESS),
            Some(_) => {}
        }
        let port = self.number(domid);
        let Unbound { read, write, .. } = self.unbound.remove(&key).ok_or(Errno::NOENT)?;
        Ok(End { port, read, write })
    }

    /// Gives a port up; tells whether it was still unbound. Of a bound one the hub holds
    /// nothing, the domain closes its descriptors.
    ///
    /// # Errors
    /// `NOENT` for a port that the domain never had.
    pub fn close(&mut self, domid: Domid, port: u32) -> Result<bool, Errno> {
        let known = self
            .last
            .get(&domid)
            .is_some_and(|last| (1..=*last).contains(&port));
        match self.unbound.remove(&(domid, port)) {
            Some(_) => Ok(true),
            None if known => Ok(false),
            None => Err(Errno::NOENT),
        }
    }

    /// The end of a domain: its unbound channels are gone, and so are those that waited for
    /// it (their owners see end of file). Tells whose they were, one entry for each.
    pub fn forget(&mut self, domid: Domid) -> Vec<Domid> {
        self.last.remove(&domid);
        let mut released = Vec::new();
        self.unbound.retain(|(owner, _), unbound| {
            let over = *owner == domid || unbound.peer == domid;
            if over {
                released.push(*owner);
            }
            !over
        });
        released
    }

    /// Port numbers count up from 1, for as long as the domain lives.
    fn number(&mut self, domid: Domid) -> u32 {
        let last = self.last.entry(domid).or_default();
        *last = last.checked_add(1).unwrap_or(1);
        *last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_end(end: &End) -> bool {
        rustix::io::read(&end.read, &mut [0; 1]) == Ok(0)
    }

    #[test]
    fn bells_ring_both_ways_and_ends_are_seen() {
        let mut channels = Channels::default();
        let here = channels.allocate(1, 2).expect("allocated");
        assert_eq!(channels.bind(3, 1, here.port).err(), Some(Errno::ACCESS));
        let there = channels.bind(2, 1, here.port).expect("bound");
        assert_eq!(channels.bind(2, 1, here.port).err(), Some(Errno::NOENT));
        for (from, to) in [(&here, &there), (&there, &here)] {
            let mut byte = [0];
            assert_eq!(rustix::io::read(&to.read, &mut byte), Err(Errno::AGAIN));
            assert_eq!(rustix::io::write(&from.write, b"!"), Ok(1));
            assert_eq!(rustix::io::read(&to.read, &mut byte), Ok(1));
        }
        drop(there);
        assert!(at_end(&here));
    }

    #[test]
    fn closing_is_for_the_owner() {
        let mut channels = Channels::default();
        let end = channels.allocate(1, 2).expect("allocated");
        assert_eq!(channels.close(2, end.port), Err(Errno::NOENT));
        assert_eq!(channels.close(1, 0), Err(Errno::NOENT));
        assert_eq!(channels.close(1, end.port), Ok(true));
        assert_eq!(channels.close(1, end.port), Ok(false));
        assert_eq!(channels.bind(2, 1, end.port).err(), Some(Errno::NOENT));
    }

    #[test]
    fn the_end_of_a_domain_is_told_to_who_waited() {
        let mut channels = Channels::default();
        let waiting = channels.allocate(1, 2).expect("allocated");
        let other = channels.allocate(1, 3).expect("allocated");
        let theirs = channels.allocate(2, 1).expect("allocated");
        let mut released = channels.forget(2);
        released.sort();
        assert_eq!(released, [1, 2]);
        assert!(at_end(&waiting));
        assert!(!at_end(&other));
        assert_eq!(channels.bind(1, 2, theirs.port).err(), Some(Errno::NOENT));
    }
}
