//! Memory that can be handed out and relied upon: sealed memfds.
//!
//! A file that someone else can shorten is a `SIGBUS` in whoever maps it. So a
//! mapper takes nothing but a memfd in ordinary memory, long enough, and sealed
//! against shrinking for ever.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    fstatfs, ftruncate, memfd_create,
};

use super::mapping::Mapping;
use crate::{Access, Error, PAGE};

/// `TMPFS_MAGIC` in linux/magic.h: what a memfd of ordinary pages lives on. One
/// of huge pages answers `HUGETLBFS_MAGIC`; it can run dry at a page fault.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Makes a sealed memfd of zeroed pages, and our own writable mapping of it.
pub(super) fn create(pages: usize, peer: Access) -> Result<(OwnedFd, Mapping), Error> {
    let failed = |errno| Error::posix(errno, format_args!("making {pages} shared pages"));
    let len = (pages * PAGE) as u64;
    let memfd =
        memfd_create("tube", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(failed)?;
    ftruncate(&memfd, len).map_err(failed)?;
    // Take the memory now: no memory is an error here, but a signal later.
    fallocate(&memfd, FallocateFlags::empty(), 0, len).map_err(failed)?;
    // F_SEAL_FUTURE_WRITE spares the mappings that are there, so ours goes first.
    let mut mapping = Mapping::reserve(pages).map_err(failed)?;
    mapping
        .place(0, memfd.as_fd(), 0, pages, Access::ReadWrite)
        .map_err(failed)?;
    mapping.exclude_from_children().map_err(failed)?;
    fcntl_add_seals(&memfd, seals(peer)).map_err(failed)?;
    Ok((memfd, mapping))
}

/// What a memfd with this access for the peer is sealed with.
fn seals(peer: Access) -> SealFlags {
    let always = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    match peer {
        Access::ReadOnly => always | SealFlags::FUTURE_WRITE,
        Access::ReadWrite => always,
    }
}

/// Checks that the first `pages` pages of a descriptor can be mapped and relied
/// upon, and that they are sealed for just this access. Seals and kind of a file
/// never change afterwards, so what holds here holds while it is mapped.
///
/// # Errors
/// `EINVAL`, saying what is wrong with it.
pub fn check(memfd: impl AsFd, pages: usize, access: Access) -> Result<(), Error> {
    let refuse = |why| {
        Err(Error::invalid(format!(
            "refused to map a peer's memory: {why}"
        )))
    };
    // A file that cannot have seals answers EINVAL.
    let Ok(actual) = fcntl_get_seals(&memfd) else {
        return refuse("not a memfd");
    };
    let failed = |errno| Error::posix(errno, "looking at a peer's memory");
    if fstatfs(&memfd).map_err(failed)?.f_type as u64 != TMPFS_MAGIC {
        return refuse("not in ordinary pages");
    }
    if !actual.contains(seals(Access::ReadWrite)) {
        return refuse("not sealed against shrinking, growing and unsealing");
    }
    if actual.contains(SealFlags::FUTURE_WRITE) != (access == Access::ReadOnly) {
        return refuse("sealed for another access than it was granted with");
    }
    // The seals say that the size is final; look at it after them.
    let size = fstat(&memfd).map_err(failed)?.st_size;
    if u64::try_from(size).is_ok_and(|size| size / PAGE as u64 >= pages as u64) {
        Ok(())
    } else {
        refuse("too short")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_make_passes_our_own_check_for_its_access_only() {
        for (made, other) in [
            (Access::ReadOnly, Access::ReadWrite),
            (Access::ReadWrite, Access::ReadOnly),
        ] {
            let (memfd, _mapping) = create(3, made).unwrap();
            check(&memfd, 3, made).unwrap();
            assert_eq!(check(&memfd, 3, other).unwrap_err().atom(), "einval");
            assert_eq!(check(&memfd, 4, made).unwrap_err().atom(), "einval");
        }
    }
}
