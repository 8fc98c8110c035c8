//! The grant table of every domain: which memfd pages it lets which other domain map.

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
    last: HashMap<Domid, u32>,
}

#[derive(Debug)]
struct Share {
    peer: Domid,
    pages: u32,
    access: Access,
    /// None once the peer is gone: whoever gets its domid next is not whom this was meant for.
    memory: Option<OwnedFd>,
}

impl Grants {
    /// Grants pages to a peer; the first one's gref, the others follow it.
    ///
    /// # Errors
    /// `INVAL` for a number of pages that cannot be, or for a descriptor that is not a memfd
    /// of that size which can neither shrink nor grow (the mapper checks it all again; this
    /// is to tell the one who made the mistake). `NOSPC` when there is no free gref.
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
        check(&memory, pages)?;
        let id = self.free_id(granter).ok_or(Errno::NOSPC)?;
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

    /// Ends the share that begins with that gref; tells whether it held a descriptor.
    /// Mappings of it stay, as they are the kernel's.
    ///
    /// # Errors
    /// `NOENT` if there is none.
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

    /// What `mapper` needs to map the pages: runs in the order of the refs, and the
    /// descriptors that they name.
    ///
    /// # Errors
    /// `NOENT` for a gref that nobody granted (or not any more), `ACCESS` for one granted to
    /// somebody else, `INVAL` for no refs or for more shares than one message can carry.
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

    /// The end of a domain: what it granted is gone, what was granted to it cannot be mapped
    /// any more. Tells whose descriptors were let go, one entry for each.
    pub fn forget(&mut self, domid: Domid) -> Vec<Domid> {
        self.last.remove(&domid);
        let mut released = Vec::new();
        self.shares.retain(|(granter, _), share| {
            let over = *granter == domid || share.peer == domid;
            if over && share.memory.take().is_some() {
                released.push(*granter);
            }
            *granter != domid
        });
        released
    }

    /// The next id that is not in use, as late as possible after its last use. Never 0, so
    /// that no gref is 0.
    fn free_id(&mut self, granter: Domid) -> Option<u32> {
        const ID_MAX: u32 = share_of(Gref::MAX);
        let last = self.last.entry(granter).or_default();
        // Far fewer shares than ids can be there, so this ends soon.
        for _ in 0..ID_MAX {
            *last = if *last < ID_MAX { *last + 1 } else { 1 };
            if !self.shares.contains_key(&(granter, *last)) {
                return Some(*last);
            }
        }
        None
    }
}

/// Seals are asked for first: that fails for whatever is not a memfd without going to a file
/// system that may never answer.
fn check(memory: &OwnedFd, pages: u32) -> Result<(), Errno> {
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
    fn the_named_peer_and_nobody_else_maps() {
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
    fn what_is_not_a_sealed_memfd_of_that_size_is_refused() {
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
    fn the_next_of_that_domid_gets_nothing() {
        let mut grants = Grants::default();
        let to_dead = grants.share(1, 2, 1, RO, memory(1)).expect("shared");
        let of_dead = grants.share(2, 1, 1, RO, memory(1)).expect("shared");
        let other = grants.share(1, 3, 1, RO, memory(1)).expect("shared");
        let mut released = grants.forget(2);
        released.sort();
        assert_eq!(released, [1, 2]);
        assert_eq!(grants.map(2, 1, &[to_dead]).err(), Some(Errno::NOENT));
        assert_eq!(grants.map(1, 2, &[of_dead]).err(), Some(Errno::NOENT));
        assert!(grants.map(3, 1, &[other]).is_ok());
        // Its granter can still end it in the usual way.
        assert_eq!(grants.unshare(1, to_dead), Ok(false));
    }

    #[test]
    fn ids_go_round_and_skip_those_in_use() {
        let mut grants = Grants::default();
        let held = grants.share(1, 2, 1, RO, memory(1)).expect("shared");
        assert_eq!(share_of(held), 1);
        grants.last.insert(1, (1 << 22) - 2);
        let next = grants.share(1, 2, 1, RO, memory(1)).expect("shared");
        assert_eq!(share_of(next), (1 << 22) - 1);
        let next = grants.share(1, 2, 1, RO, memory(1)).expect("shared");
        assert_eq!(share_of(next), 2);
    }
}
