//! What a hostile sharer, or a faulty hub, can pass to a mapper.

mod fake_hub;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};

use fake_hub::FakeHub;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::{Errno, pwrite};
use rustix::mm::MprotectFlags;
use tube_platform::local::memfd::check;
use tube_platform::local::proto::{Reply, Request, Run, gref};
use tube_platform::{Access, Error, ErrorKind, Gref, PAGE, Pages, Platform};

const FINAL: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

fn memfd(kind: MemfdFlags, pages: u64, seals: SealFlags) -> Result<OwnedFd, Errno> {
    let memfd = memfd_create("hostile", kind | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memfd, pages * PAGE as u64)?;
    fcntl_add_seals(&memfd, seals)?;
    Ok(memfd)
}

fn ordinary(pages: u64, seals: SealFlags) -> OwnedFd {
    memfd(MemfdFlags::empty(), pages, seals).unwrap()
}

fn refused(fd: impl AsFd, access: Access) {
    let error = check(fd, 2, access).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Posix(Errno::INVAL), "{error}");
}

#[test]
fn memory_that_can_be_taken_away_is_refused() {
    check(ordinary(2, FINAL), 2, Access::ReadWrite).unwrap();
    check(ordinary(3, FINAL), 2, Access::ReadWrite).unwrap();
    for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL] {
        refused(ordinary(2, FINAL - missing), Access::ReadWrite);
    }
    refused(ordinary(2, SealFlags::empty()), Access::ReadWrite);
    refused(ordinary(1, FINAL), Access::ReadWrite);
    refused(ordinary(0, FINAL), Access::ReadWrite);
}

#[test]
fn seals_must_match_the_grant() {
    let read_only = FINAL | SealFlags::FUTURE_WRITE;
    check(ordinary(2, read_only), 2, Access::ReadOnly).unwrap();
    refused(ordinary(2, FINAL), Access::ReadOnly);
    refused(ordinary(2, read_only), Access::ReadWrite);
}

#[test]
fn only_an_ordinary_memfd_is_accepted() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(2 * PAGE as u64).unwrap();
    refused(&file, Access::ReadWrite);
    // On tmpfs, like a memfd, but a file with a name.
    if let Ok(file) = tempfile::tempfile_in("/dev/shm") {
        file.set_len(2 * PAGE as u64).unwrap();
        refused(&file, Access::ReadWrite);
    }
    refused(File::open("/dev/zero").unwrap(), Access::ReadOnly);
    refused(File::open("/").unwrap(), Access::ReadOnly);
    refused(rustix::pipe::pipe().unwrap().0, Access::ReadOnly);
}

#[test]
fn huge_pages_are_refused() {
    // 512 small pages are one huge page, which need not be reserved yet.
    match memfd(MemfdFlags::HUGETLB, 512, FINAL) {
        Ok(huge) => refused(huge, Access::ReadWrite),
        Err(errno) => eprintln!("no huge pages on this machine ({errno}): not tested"),
    }
}

/// The result of mapping two pages if the hub replies to MAP like this.
fn mapped(access: Access, runs: Vec<Run>, fds: Vec<OwnedFd>) -> Result<Pages, Error> {
    let fds = Mutex::new(Some(fds));
    let hub = FakeHub::start(move |seq, request| {
        Some(match request {
            Request::Map { .. } => {
                let fds = fds.lock().unwrap().take().unwrap();
                let runs = runs.clone();
                vec![(Reply::Map { runs }.encode(seq), fds)]
            }
            _ => Vec::new(),
        })
    });
    let local = hub.attach();
    local.map(3, &[gref(1, 0), gref(1, 1)], access, None)
}

fn run(fd_index: u32, first_page: u32, pages: u32, access: Access) -> Run {
    Run {
        fd_index,
        first_page,
        pages,
        access,
    }
}

const RW: Access = Access::ReadWrite;
const RO: Access = Access::ReadOnly;

#[test]
fn a_mapping_cannot_be_shortened_by_its_sharer() {
    let theirs = ordinary(2, FINAL);
    let ours = theirs.try_clone().unwrap();
    let pages = mapped(RW, vec![run(0, 0, 2, RW)], vec![ours]).unwrap();
    assert_eq!(pages.len(), 2 * PAGE);
    for size in [0, PAGE as u64, 3 * PAGE as u64] {
        assert_eq!(ftruncate(&theirs, size), Err(Errno::PERM));
    }
    pwrite(&theirs, b"still", PAGE as u64).unwrap();
    // SAFETY: the second of the two pages that `pages` has mapped; nothing writes them at this
    // moment.
    let seen = unsafe { pages.ptr().add(PAGE).cast::<[u8; 5]>().read_volatile() };
    assert_eq!(&seen, b"still");
}

#[test]
fn a_read_only_mapping_stays_read_only() {
    let memfd = ordinary(2, FINAL | SealFlags::FUTURE_WRITE);
    let pages = mapped(RO, vec![run(0, 0, 2, RO)], vec![memfd]).unwrap();
    // SAFETY: this only tries to change the protection of pages that `pages` holds.
    let writable = unsafe {
        rustix::mm::mprotect(
            pages.ptr().as_ptr().cast(),
            pages.len(),
            MprotectFlags::READ | MprotectFlags::WRITE,
        )
    };
    assert_eq!(writable, Err(Errno::ACCESS));
}

#[test]
fn mappings_do_not_pass_to_children() {
    let pages = mapped(RW, vec![run(0, 0, 2, RW)], vec![ordinary(2, FINAL)]).unwrap();
    let start = format!("{:x}-", pages.ptr().as_ptr() as usize);
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let flags = smaps
        .lines()
        .skip_while(|line| !line.starts_with(&start))
        .find_map(|line| line.strip_prefix("VmFlags:"))
        .unwrap();
    assert!(flags.split(' ').any(|flag| flag == "dc"), "{flags}");
}

#[test]
fn the_checks_are_made_on_what_is_mapped() {
    let kind = |result: Result<Pages, Error>| result.unwrap_err().atom();
    let both = |access| vec![run(0, 0, 2, access)];
    let unsealed = vec![ordinary(2, SealFlags::empty())];
    assert_eq!(kind(mapped(RW, both(RW), unsealed)), "einval");
    assert_eq!(
        kind(mapped(RO, both(RO), vec![ordinary(2, FINAL)])),
        "einval"
    );
    let short = vec![ordinary(1, FINAL)];
    assert_eq!(kind(mapped(RW, both(RW), short)), "einval");
    let file = vec![OwnedFd::from(tempfile::tempfile().unwrap())];
    assert_eq!(kind(mapped(RW, both(RW), file)), "einval");
    // A valid page first: the next one is checked all the same.
    let mixed = vec![run(0, 0, 1, RW), run(1, 1, 1, RW)];
    let fds = vec![ordinary(2, FINAL), ordinary(1, FINAL)];
    assert_eq!(kind(mapped(RW, mixed, fds)), "einval");
    // Granted for reading and mapped for writing, and the reverse.
    let future_write = || vec![ordinary(2, FINAL | SealFlags::FUTURE_WRITE)];
    assert_eq!(kind(mapped(RW, both(RO), future_write())), "eacces");
    assert_eq!(
        kind(mapped(RO, both(RW), vec![ordinary(2, FINAL)])),
        "eacces"
    );
}

#[test]
fn runs_that_do_not_match_the_request_are_not_mapped() {
    let good = || vec![ordinary(8, FINAL)];
    for runs in [
        vec![run(1, 0, 2, RW)],
        vec![run(0, 1, 2, RW)],
        vec![run(0, 0, 3, RW)],
        vec![run(0, 0, 1, RW)],
        vec![run(0, 1, 1, RW), run(0, 0, 1, RW)],
    ] {
        let error = mapped(RW, runs.clone(), good()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotAHub, "{runs:?}");
    }
    let error = mapped(RW, vec![run(0, 0, 2, RW)], Vec::new()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotAHub, "no descriptors");
}

#[test]
fn shared_pages_pass_the_check_of_the_mapper() {
    let (sender, memfds) = mpsc::channel();
    let hub = FakeHub::with_descriptors(move |seq, request, fds| {
        Some(match request {
            Request::Share { .. } => {
                sender.send(fds).unwrap();
                let first_ref = gref(1, 0);
                vec![(Reply::Share { first_ref }.encode(seq), Vec::new())]
            }
            _ => Vec::new(),
        })
    });
    let local = hub.attach();
    for access in [RO, RW] {
        let pages = local.share(3, 4, access, None).unwrap();
        let refs: Vec<Gref> = (0..4).map(|page| gref(1, page)).collect();
        assert_eq!(pages.refs(), refs);
        let memfd = &memfds.recv().unwrap()[0];
        check(memfd, 4, access).unwrap();
        let write = pwrite(memfd, b"x", 0);
        assert_eq!(write.is_ok(), access == RW, "{write:?}");
        drop(pages);
        // Dropping the pages sends the notice.
        let first_ref = gref(1, 0);
        assert_eq!(hub.notice(), Some(Request::Unshare { first_ref }));
    }
}

#[test]
fn invalid_references_from_the_hub_are_refused() {
    let hub = FakeHub::start(|seq, request| {
        Some(match request {
            Request::Share { .. } => {
                // Not the first page of a share.
                let first_ref = gref(1, 1);
                vec![(Reply::Share { first_ref }.encode(seq), Vec::new())]
            }
            _ => Vec::new(),
        })
    });
    let error = hub.attach().share(3, 1, RW, None).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotAHub);
}

/// More notices than the socket buffer holds, while the hub does not read. Nothing blocks, none is
/// lost, and all arrive before the next request.
#[test]
fn many_pages_are_dropped_while_the_hub_is_busy() {
    const SHARES: u32 = 2000;
    let next = AtomicU32::new(1);
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let hub = FakeHub::start(move |seq, request| {
        Some(match request {
            Request::Share { .. } => {
                let first_ref = gref(next.fetch_add(1, Ordering::Relaxed), 0);
                vec![(Reply::Share { first_ref }.encode(seq), Vec::new())]
            }
            Request::Unshare { first_ref } if *first_ref == gref(1, 0) => {
                wait.lock().unwrap().recv().unwrap();
                Vec::new()
            }
            Request::Map { .. } => {
                let none = Error::posix(Errno::NOENT, "no such reference");
                vec![(Reply::Error(none).encode(seq), Vec::new())]
            }
            _ => Vec::new(),
        })
    });
    let local = hub.attach();
    let shared: Vec<Pages> = (0..SHARES)
        .map(|_| local.share(3, 1, RW, None).unwrap())
        .collect();
    drop(shared);
    go_on.send(()).unwrap();
    let nothing = local.map(3, &[0], RW, None);
    assert_eq!(nothing.unwrap_err().atom(), "enoent");
    let unshared = hub
        .requests()
        .take_while(|request| !matches!(request, Request::Map { .. }))
        .filter(|request| matches!(request, Request::Unshare { .. }))
        .count();
    assert_eq!(unshared, SHARES as usize);
}
