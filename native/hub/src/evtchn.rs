//! Unbound event channels.
//!
//! The hub creates both pipes of a channel with non-blocking ends, so neither domain shares an open
//! file description that it could make blocking for the other. It keeps no copy of a bound channel:
//! when one end closes, the other sees end of file, with or without a hub.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tube_platform::Domid;

/// One domain's end of a channel.
#[derive(Debug)]
pub struct End {
    /// The domain's port number for it.
    pub port: u32,
    /// Receives the peer's notifications.
    pub read: OwnedFd,
    /// Notifies the peer.
    pub write: OwnedFd,
}

/// All unbound channels.
#[derive(Debug, Default)]
pub struct Channels {
    unbound: HashMap<(Domid, u32), Unbound>,
    last_port: HashMap<Domid, u32>,
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
    /// Creates a channel that `peer` may bind.
    ///
    /// # Errors
    /// Those of creating pipes.
    pub fn allocate(&mut self, domid: Domid, peer: Domid) -> Result<End, Errno> {
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (read, their_write) = pipe_with(flags)?;
        let (their_read, write) = pipe_with(flags)?;
        let port = self.next_port(domid);
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

    /// Returns the second end of a channel that `remote` allocated for `domid`, once.
    ///
    /// # Errors
    /// `NOENT` if there is no such unbound port, `ACCESS` if it is for another domain.
    pub fn bind(&mut self, domid: Domid, remote: Domid, remote_port: u32) -> Result<End, Errno> {
        let key = (remote, remote_port);
        match self.unbound.get(&key) {
            None => return Err(Errno::NOENT),
            Some(unbound) if unbound.peer != domid => return Err(Errno::ACCESS),
            Some(_) => {}
        }
        let port = self.next_port(domid);
        let Unbound { read, write, .. } = self.unbound.remove(&key).ok_or(Errno::NOENT)?;
        Ok(End { port, read, write })
    }

    /// Closes a port; true if it was still unbound. The hub holds nothing of a bound port: the
    /// domain closes its descriptors.
    ///
    /// # Errors
    /// `NOENT` for a port that was never allocated to the domain.
    pub fn close(&mut self, domid: Domid, port: u32) -> Result<bool, Errno> {
        let known = self
            .last_port
            .get(&domid)
            .is_some_and(|last| (1..=*last).contains(&port));
        match self.unbound.remove(&(domid, port)) {
            Some(_) => Ok(true),
            None if known => Ok(false),
            None => Err(Errno::NOENT),
        }
    }

    /// Removes the unbound channels of a domain that has ended, and those allocated for it, whose
    /// owners then see end of file. Returns the owner of each.
    pub fn remove_domain(&mut self, domid: Domid) -> Vec<Domid> {
        self.last_port.remove(&domid);
        let mut released = Vec::new();
        self.unbound.retain(|(owner, _), unbound| {
            let ended = *owner == domid || unbound.peer == domid;
            if ended {
                released.push(*owner);
            }
            !ended
        });
        released
    }

    /// Port numbers count up from 1 while the domain is alive.
    fn next_port(&mut self, domid: Domid) -> u32 {
        let last = self.last_port.entry(domid).or_default();
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
    fn notifications_pass_both_ways_and_a_closed_end_is_seen() {
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
    fn only_the_owner_closes_a_port() {
        let mut channels = Channels::default();
        let end = channels.allocate(1, 2).expect("allocated");
        assert_eq!(channels.close(2, end.port), Err(Errno::NOENT));
        assert_eq!(channels.close(1, 0), Err(Errno::NOENT));
        assert_eq!(channels.close(1, end.port), Ok(true));
        assert_eq!(channels.close(1, end.port), Ok(false));
        assert_eq!(channels.bind(2, 1, end.port).err(), Some(Errno::NOENT));
    }

    #[test]
    fn unbound_channels_close_with_either_domain() {
        let mut channels = Channels::default();
        let waiting = channels.allocate(1, 2).expect("allocated");
        let other = channels.allocate(1, 3).expect("allocated");
        let theirs = channels.allocate(2, 1).expect("allocated");
        let mut released = channels.remove_domain(2);
        released.sort();
        assert_eq!(released, [1, 2]);
        assert!(at_end(&waiting));
        assert!(!at_end(&other));
        assert_eq!(channels.bind(1, 2, theirs.port).err(), Some(Errno::NOENT));
    }
}
