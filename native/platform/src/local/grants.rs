//! Shared pages: granting our own, and mapping a peer's.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::evtchn::UnmapNotify;
use super::mapping::Mapping;
use super::memfd;
use super::proto::{
    self, FDS_MAX, MAP_REFS_MAX, Reply, Request, Run, SHARE_PAGES_MAX, page_of, share_of,
};
use super::service::Service;
use crate::{Access, Domid, Error, Gref, Pages};

/// Client of the hub's grant service.
pub(super) struct Grants {
    service: Service,
}

impl Grants {
    pub(super) fn new(service: Service) -> Self {
        Self { service }
    }

    pub(super) fn share(
        self: &Arc<Self>,
        peer: Domid,
        pages: usize,
        access: Access,
        unmap_notify: Option<UnmapNotify>,
    ) -> Result<Pages, Error> {
        let count = u32::try_from(pages)
            .ok()
            .filter(|n| (1..=SHARE_PAGES_MAX).contains(n))
            .ok_or_else(|| Error::invalid(format!("cannot share {pages} pages at once")))?;
        let (memfd, mapping) = memfd::create(pages, access)?;
        let share = Request::Share {
            peer,
            pages: count,
            access,
        };
        let first_ref = match self.service.call(&share, &[memfd.as_fd()])? {
            (Reply::Share { first_ref }, _) if page_of(first_ref) == 0 => first_ref,
            _ => return Err(self.service.unexpected_reply()),
        };
        let refs = (0..count).map(|page| first_ref | page).collect();
        let grant = Grant {
            grants: Arc::clone(self),
            first_ref,
        };
        Ok(into_pages(mapping, refs, unmap_notify, Some(grant)))
    }

    pub(super) fn map(
        &self,
        granter: Domid,
        refs: &[Gref],
        access: Access,
        unmap_notify: Option<UnmapNotify>,
    ) -> Result<Pages, Error> {
        if refs.is_empty() {
            return Err(Error::invalid("no references to map"));
        }
        let failed = |errno| Error::posix(errno, "mapping a peer's pages");
        let mut mapping = Mapping::reserve(refs.len()).map_err(failed)?;
        let mut at = 0;
        while at < refs.len() {
            let batch = &refs[at..][..batch_len(&refs[at..])];
            let (runs, memfds) = self.request_map(granter, batch)?;
            for (run, run_refs) in
                match_runs(batch, &runs).ok_or_else(|| self.service.unexpected_reply())?
            {
                let memfd = memfds
                    .get(run.fd_index as usize)
                    .ok_or_else(|| self.service.unexpected_reply())?;
                if run.access != access {
                    return Err(Error::posix(
                        Errno::ACCESS,
                        format_args!(
                            "reference {:#x} was granted with another access",
                            run_refs[0]
                        ),
                    ));
                }
                let (first, pages) = (run.first_page as usize, run.pages as usize);
                memfd::check(memfd, first + pages, access)?;
                mapping
                    .place(at, memfd.as_fd(), first, pages, access)
                    .map_err(failed)?;
                at += pages;
            }
        }
        mapping.exclude_from_children().map_err(failed)?;
        Ok(into_pages(mapping, refs.to_vec(), unmap_notify, None))
    }

    fn request_map(
        &self,
        granter: Domid,
        batch: &[Gref],
    ) -> Result<(Vec<Run>, Vec<OwnedFd>), Error> {
        let map = Request::Map {
            granter,
            refs: batch.to_vec(),
        };
        match self.service.call(&map, &[])? {
            (Reply::Map { runs }, memfds) => Ok((runs, memfds)),
            _ => Err(self.service.unexpected_reply()),
        }
    }
}

/// How many references from the start one MAP can request: a message holds [`MAP_REFS_MAX`], and
/// its reply [`FDS_MAX`] memfds.
fn batch_len(refs: &[Gref]) -> usize {
    let mut shares = HashSet::new();
    refs.iter()
        .take(MAP_REFS_MAX)
        .take_while(|gref| {
            shares.insert(share_of(**gref));
            shares.len() <= FDS_MAX
        })
        .count()
}

/// Pairs each run with its references. None unless the runs are exactly these pages in this order.
fn match_runs<'a>(mut refs: &'a [Gref], runs: &'a [Run]) -> Option<Vec<(&'a Run, &'a [Gref])>> {
    let mut matched = Vec::with_capacity(runs.len());
    for run in runs {
        let (these, rest) = refs.split_at_checked(run.pages as usize)?;
        let share = share_of(*these.first()?);
        let expected = (run.first_page..).map(|page| proto::gref(share, page));
        if !these.iter().copied().eq(expected.take(these.len())) {
            return None;
        }
        matched.push((run, these));
        refs = rest;
    }
    refs.is_empty().then_some(matched)
}

fn into_pages(
    mapping: Mapping,
    refs: Vec<Gref>,
    unmap_notify: Option<UnmapNotify>,
    grant: Option<Grant>,
) -> Pages {
    let ptr = mapping.ptr();
    let keeper = Keeper {
        mapping,
        unmap_notify,
        _grant: grant,
    };
    // SAFETY: the mapping holds one placed, readable page per reference, and the keeper owns it
    // until it is dropped.
    unsafe { Pages::from_raw(ptr, refs, Box::new(keeper)) }
}

/// Undoes the mapping in the order of Xen's kernel: byte, notification, mapping (by the order of
/// the fields), grant.
struct Keeper {
    mapping: Mapping,
    unmap_notify: Option<UnmapNotify>,
    _grant: Option<Grant>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(unmap_notify) = &self.unmap_notify {
            self.mapping.zero_byte(unmap_notify.offset);
            unmap_notify.send();
        }
    }
}

/// Ends a grant when dropped.
struct Grant {
    grants: Arc<Grants>,
    first_ref: Gref,
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.grants.service.send_notice(Request::Unshare {
            first_ref: self.first_ref,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first_page: u32, pages: u32) -> Run {
        Run {
            fd_index: 0,
            first_page,
            pages,
            access: Access::ReadWrite,
        }
    }

    #[test]
    fn a_batch_fits_in_one_message() {
        let neighbours: Vec<Gref> = (0..1024).collect();
        assert_eq!(batch_len(&neighbours), MAP_REFS_MAX);
        let apart: Vec<Gref> = (0..300).map(|share| proto::gref(share, 0)).collect();
        assert_eq!(batch_len(&apart), FDS_MAX);
        assert_eq!(batch_len(&apart[..7]), 7);
        // References to one share need one descriptor.
        assert_eq!(batch_len(&[5; 300]), 300);
    }

    #[test]
    fn runs_must_match_the_requested_pages() {
        let refs = [proto::gref(7, 2), proto::gref(7, 3), proto::gref(9, 0)];
        assert!(match_runs(&refs, &[run(2, 2), run(0, 1)]).is_some());
        assert!(match_runs(&refs, &[run(2, 1), run(3, 1), run(0, 1)]).is_some());
        for wrong in [
            &[run(2, 2)][..],
            &[run(2, 3)],
            &[run(3, 2), run(0, 1)],
            &[run(2, 2), run(1, 1)],
            &[run(2, 2), run(0, 2)],
            &[run(2, 2), run(0, 1), run(0, 1)],
            &[],
        ] {
            assert!(match_runs(&refs, wrong).is_none(), "{wrong:?}");
        }
    }
}
