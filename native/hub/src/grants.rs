//! The grant tables: which pages of which memfds each domain lets another domain map.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::SealFlags;
use rustix::io::Errno;
use tube_platform::local::proto::{FDS_MAX, Run, SHARE_PAGES_MAX, gref, page_of, share_of};
use tube_platform::{Access, Domid, Gref, PAGE};

/// All grants of all domains.
#[derive(Debug, Default)]
pub struct Grants {
    shares: HashMap<(Domid, u32), Share>,
    last_id: HashMap<Domid, u32>,
}

#[derive(Debug)]
struct Share {
    peer: Domid,
    pages: u32,
    access: Access,
    /// None once the peer has ended: the grant is not for the next domain with its domid.
    memory: Option<OwnedFd>,
}

impl Grants {
    /// Grants pages to a peer. Returns the gref of the first page; the others follow it.
    ///
    /// # Errors
    /// `INVAL` for an impossible number of pages, or if `memory` is not a memfd of that size sealed
    /// against shrinking and growing. The mapper checks this again; the check here reports the
    /// mistake to the domain that made it. `NOSPC` if no gref is free.
    pub fn share(
        &mut self,
        granter: Domid,
        peer: Domid,
        pages: u32,
        access: Access,
        memory: OwnedFd,
    ) -> Result<Gref, Errno> {
        if !(1..=SHARE_PAGES_MAX).contains(&pages) {
            return Err(Errno::INVAL);
        }
        check_memfd(&memory, pages)?;
        let id = self.next_id(granter).ok_or(Errno::NOSPC)?;
        self.shares.insert(
            (granter, id),
            Share {
                peer,
                pages,
                access,
                memory: Some(memory),
            },
        );
        Ok(gref(id, 0))
    }

    /// Ends the share that begins with `first`; true if it held a descriptor. Existing mappings
    /// stay.
    ///
    /// # Errors
    /// `NOENT` if there is no such share.
    pub fn unshare(&mut self, granter: Domid, first: Gref) -> Result<bool, Errno> {
        if page_of(first) != 0 {
            return Err(Errno::NOENT);
        }
        let share = self
            .shares
            .remove(&(granter, share_of(first)))
            .ok_or(Errno::NOENT)?;
        Ok(share.memory.is_some())
    }

    /// Returns what `mapper` needs to map the pages: runs in the order of the refs, and the
    /// descriptors that the runs refer to.
    ///
    /// # Errors
    /// `NOENT` for a gref that is not granted, `ACCESS` for one granted to another domain, `INVAL`
    /// for no refs or for more shares than one message can carry.
    pub fn map(
        &self,
        mapper: Domid,
        granter: Domid,
        refs: &[Gref],
    ) -> Result<(Vec<Run>, Vec<BorrowedFd<'_>>), Errno> {
        let mut ids: Vec<u32> = Vec::new();
        let mut runs: Vec<Run> = Vec::new();
        let mut fds = Vec::new();
        for gref in refs {
            let (id, page) = (share_of(*gref), page_of(*gref));
            let share = self
                .shares
                .get(&(granter, id))
                .filter(|share| page < share.pages)
                .ok_or(Errno::NOENT)?;
            if share.peer != mapper {
                return Err(Errno::ACCESS);
            }
            let memory = share.memory.as_ref().ok_or(Errno::NOENT)?;
            let fd_index = match ids.iter().rposition(|known| *known == id) {
                Some(at) => at,
                None if fds.len() == FDS_MAX => return Err(Errno::INVAL),
                None => {
                    ids.push(id);
                    fds.push(memory.as_fd());
                    fds.len() - 1
                }
            };
            let fd_index = u32::try_from(fd_index).map_err(|_| Errno::INVAL)?;
            match runs.last_mut() {
                Some(run) if run.fd_index == fd_index && run.first_page + run.pages == page => {
                    run.pages += 1
                }
                _ => runs.push(Run {
                    fd_index,
                    first_page: page,
                    pages: 1,
                    access: share.access,
                }),
            }
        }
        if runs.is_empty() {
            Err(Errno::INVAL)
        } else {
            Ok((runs, fds))
        }
    }

    /// Removes the grants of a domain that has ended, and makes those to it unusable. Returns the
    /// granter of each descriptor closed.
    pub fn remove_domain(&mut self, domid: Domid) -> Vec<Domid> {
        self.last_id.remove(&domid);
        let mut released = Vec::new();
        self.shares.retain(|(granter, _), share| {
            let ended = *granter == domid || share.peer == domid;
            if ended && share.memory.take().is_some() {
                released.push(*granter);
            }
            *granter != domid
        });
        released
    }

    /// The next unused id. Ids cycle, so that reuse is as late as possible, and skip 0, so that no
    /// gref is 0.
    fn next_id(&mut self, granter: Domid) -> Option<u32> {
        const ID_MAX: u32 = share_of(Gref::MAX);
        let last = self.last_id.entry(granter).or_default();
        // Far fewer shares than ids can exist, so this loop is short.
        for _ in 0..ID_MAX {
            *last = if *last < ID_MAX { *last + 1 } else { 1 };
            if !self.shares.contains_key(&(granter, *last)) {
                return Some(*last);
            }
        }
        None
    }
}

/// Reads the seals first: that fails for anything but a memfd, and never blocks in a file system.
fn check_memfd(memory: &OwnedFd, pages: u32) -> Result<(), Errno> {
    let seals = rustix::fs::fcntl_get_seals(memory).map_err(|_| Errno::INVAL)?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL) {
        return Err(Errno::INVAL);
    }
    let size = rustix::fs::fstat(memory)?.st_size;
    if u64::try_from(size) == Ok(u64::from(pages) * PAGE as u64) {
        Ok(())
    } else {
        Err(Errno::INVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::MemfdFlags;

    const RO: Access = Access::ReadOnly;

    fn memory(pages: u64) -> OwnedFd {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .expect("a memfd");
        rustix::fs::ftruncate(&fd, pages * 4096).expect("sized");
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .expect("sealed");
        fd
    }

    fn run(fd_index: u32, first_page: u32, pages: u32) -> Run {
        Run {
            fd_index,
            first_page,
            pages,
            access: RO,
        }
    }

    #[test]
    fn only_the_named_peer_can_map() {
        let mut grants = Grants::default();
        let first = grants.share(3, 5, 4, RO, memory(4)).expect("shared");
        let second = grants.share(3, 5, 1, RO, memory(1)).expect("shared");
        assert!(first != 0 && second != first);
        let refs = [first, first + 1, second, first + 3, first + 2];
        let (runs, fds) = grants.map(5, 3, &refs).expect("mapped");
        assert_eq!(
            runs,
            [run(0, 0, 2), run(1, 0, 1), run(0, 3, 1), run(0, 2, 1)]
        );
        assert_eq!(fds.len(), 2);
        assert_eq!(grants.map(6, 3, &refs).err(), Some(Errno::ACCESS));
        assert_eq!(grants.map(3, 3, &refs).err(), Some(Errno::ACCESS));
        assert_eq!(grants.map(5, 4, &refs).err(), Some(Errno::NOENT));
        assert_eq!(grants.map(5, 3, &[first + 4]).err(), Some(Errno::NOENT));
        assert_eq!(grants.map(5, 3, &[]).err(), Some(Errno::INVAL));
        assert_eq!(grants.unshare(3, first + 1), Err(Errno::NOENT));
        assert_eq!(grants.unshare(5, first), Err(Errno::NOENT));
        assert_eq!(grants.unshare(3, first), Ok(true));
        assert_eq!(grants.map(5, 3, &[first]).err(), Some(Errno::NOENT));
        assert!(grants.map(5, 3, &[second]).is_ok());
    }

    #[test]
    fn only_a_sealed_memfd_of_the_right_size_can_be_shared() {
        let mut grants = Grants::default();
        let (pipe, _) = rustix::pipe::pipe().expect("a pipe");
        assert_eq!(grants.share(1, 2, 1, RO, pipe), Err(Errno::INVAL));
        let soft = rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING).expect("a memfd");
        rustix::fs::ftruncate(&soft, 4096).expect("sized");
        assert_eq!(grants.share(1, 2, 1, RO, soft), Err(Errno::INVAL));
        assert_eq!(grants.share(1, 2, 2, RO, memory(1)), Err(Errno::INVAL));
        assert_eq!(grants.share(1, 2, 0, RO, memory(0)), Err(Errno::INVAL));
        assert_eq!(
            grants.share(1, 2, 1025, RO, memory(1025)),
            Err(Errno::INVAL)
        );
        assert!(grants.share(1, 2, 1024, RO, memory(1024)).is_ok());
    }

    #[test]
    fn a_new_domain_with_an_old_domid_inherits_no_grants() {
        let mut grants = Grants::default();
        let to_dead = grants.share(1, 2, 1, RO, memory(1)).expect("shared");
        let of_dead = grants.share(2, 1, 1, RO, memory(1)).expect("shared");
        let other = grants.share(1, 3, 1, RO, memory(1)).expect("shared");
        let mut released = grants.remove_domain(2);
        released.sort();
        assert_eq!(released, [1, 2]);
        assert_eq!(grants.map(2, 1, &[to_dead]).err(), Some(Errno::NOENT));
        assert_eq!(grants.map(1, 2, &[of_dead]).err(), Some(Errno::NOENT));
        assert!(grants.map(3, 1, &[other]).is_ok());
        // The granter can still end the share as usual.
        assert_eq!(grants.unshare(1, to_dead), Ok(false));
    }

    #[test]
    fn ids_cycle_and_skip_those_in_use() {
        let mut grants = Grants::default();
        let held = grants.share(1, 2, 1, RO, memory(1)).expect("shared");
        assert_eq!(share_of(held), 1);
        grants.last_id.insert(1, (1 << 22) - 2);
        let next = grants.share(1, 2, 1, RO, memory(1)).expect("shared");
        assert_eq!(share_of(next), (1 << 22) - 1);
        let next = grants.share(1, 2, 1, RO, memory(1)).expect("shared");
        assert_eq!(share_of(next), 2);
    }
}
