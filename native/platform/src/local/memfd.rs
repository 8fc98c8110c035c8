//! Sealed memfds: memory that is safe to share with a peer.
//!
//! If the owner of a file shortens it, every process that maps it can get `SIGBUS`. So a mapper
//! accepts only a memfd in ordinary memory that is long enough and permanently sealed against
//! shrinking.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    fstatfs, ftruncate, memfd_create,
};

use super::mapping::Mapping;
use crate::{Access, Error, PAGE};

/// `TMPFS_MAGIC` in linux/magic.h: the file system of a memfd with ordinary pages. A memfd with
/// huge pages has `HUGETLBFS_MAGIC`; it can run out of memory at a page fault.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Creates a sealed memfd of zeroed pages, and our own writable mapping of it.
pub(super) fn create(pages: usize, peer: Access) -> Result<(OwnedFd, Mapping), Error> {
    let failed = |errno| Error::posix(errno, format_args!("allocating {pages} shared pages"));
    let len = (pages * PAGE) as u64;
    let memfd =
        memfd_create("tube", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(failed)?;
    ftruncate(&memfd, len).map_err(failed)?;
    // Allocate the memory now: running out is an error here, but a signal later.
    fallocate(&memfd, FallocateFlags::empty(), 0, len).map_err(failed)?;
    // F_SEAL_FUTURE_WRITE does not affect existing mappings, so map before sealing.
    let mut mapping = Mapping::reserve(pages).map_err(failed)?;
    mapping
        .place(0, memfd.as_fd(), 0, pages, Access::ReadWrite)
        .map_err(failed)?;
    mapping.exclude_from_children().map_err(failed)?;
    fcntl_add_seals(&memfd, seals(peer)).map_err(failed)?;
    Ok((memfd, mapping))
}

/// The seals of a memfd that gives the peer this access.
fn seals(peer: Access) -> SealFlags {
    let always = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    match peer {
        Access::ReadOnly => always | SealFlags::FUTURE_WRITE,
        Access::ReadWrite => always,
    }
}

/// Checks that the first `pages` pages of a descriptor are safe to map, and that they are sealed
/// for exactly this access. A file's seals and type never change afterwards, so the result stays
/// valid while it is mapped.
///
/// # Errors
/// `EINVAL`, with the reason.
pub fn check(memfd: impl AsFd, pages: usize, access: Access) -> Result<(), Error> {
    let refuse = |why| {
        Err(Error::invalid(format!(
            "refused to map a peer's memory: {why}"
        )))
    };
    // EINVAL: a file that cannot have seals.
    let Ok(actual) = fcntl_get_seals(&memfd) else {
        return refuse("not a memfd");
    };
    let failed = |errno| Error::posix(errno, "checking a peer's memory");
    if fstatfs(&memfd).map_err(failed)?.f_type as u64 != TMPFS_MAGIC {
        return refuse("not in ordinary pages");
    }
    if !actual.contains(seals(Access::ReadWrite)) {
        return refuse("not sealed against shrinking, growing and unsealing");
    }
    if actual.contains(SealFlags::FUTURE_WRITE) != (access == Access::ReadOnly) {
        return refuse("sealed for another access than it was granted with");
    }
    // The seals make the size final, so read it after them.
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
    fn a_created_memfd_passes_the_check_only_for_its_access() {
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
