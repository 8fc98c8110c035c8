//! The calls that reach the library, observed by fake functions.

use std::cell::RefCell;
use std::ptr;

use super::*;
use crate::{ErrorKind, PAGE};

thread_local! {
    /// The calls made, in order. Each test has a thread of its own.
    static CALLS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// The error of the next share or map.
    static FAILS: RefCell<Option<Errno>> = const { RefCell::new(None) };
}

fn called(call: String) {
    CALLS.with_borrow_mut(|calls| calls.push(call));
}

fn calls() -> Vec<String> {
    CALLS.take()
}

/// Page-aligned memory, or NULL and errno, as the library returns them.
fn memory(pages: usize) -> *mut c_void {
    if let Some(errno) = FAILS.take() {
        // SAFETY: the C library's errno of this thread.
        unsafe { *__errno_location() = errno.raw_os_error() };
        return ptr::null_mut();
    }
    // SAFETY: a new anonymous mapping affects no existing memory. It stays until the test ends.
    unsafe {
        rustix::mm::mmap_anonymous(
            ptr::null_mut(),
            pages * PAGE,
            ProtFlags::READ | ProtFlags::WRITE,
            rustix::mm::MapFlags::SHARED,
        )
    }
    .expect("memory")
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

unsafe extern "C" fn open_shr(_: *mut Logger, flags: c_uint) -> *mut c_void {
    called(format!("gntshr_open {flags}"));
    ptr::without_provenance_mut(0x51)
}

unsafe extern "C" fn open_tab(_: *mut Logger, flags: c_uint) -> *mut c_void {
    called(format!("gnttab_open {flags}"));
    ptr::without_provenance_mut(0x7a)
}

unsafe extern "C" fn no_tab(_: *mut Logger, _: c_uint) -> *mut c_void {
    // SAFETY: as above.
    unsafe { *__errno_location() = Errno::ACCESS.raw_os_error() };
    ptr::null_mut()
}

unsafe extern "C" fn close(handle: *mut c_void) -> c_int {
    called(format!("close {:#x}", handle.addr()));
    0
}

unsafe extern "C" fn no_fd(_: *mut c_void) -> c_int {
    -1
}

unsafe extern "C" fn share_pages(
    handle: *mut c_void,
    domid: u32,
    count: c_int,
    refs: *mut Gref,
    writable: c_int,
) -> *mut c_void {
    called(format!(
        "share {:#x} to {domid}: {count} {writable}",
        handle.addr()
    ));
    for page in 0..count {
        // SAFETY: the caller has room for `count`.
        unsafe { *refs.add(page as usize) = 100 + page as Gref };
    }
    memory(count as usize)
}

unsafe extern "C" fn share_notify(
    _: *mut c_void,
    domid: u32,
    gref: *mut Gref,
    writable: c_int,
    offset: u32,
    port: u32,
) -> *mut c_void {
    called(format!(
        "share_notify to {domid}: {writable} {offset} {port}"
    ));
    // SAFETY: the caller has room for one.
    unsafe { *gref = 9 };
    memory(1)
}

unsafe extern "C" fn unshare(handle: *mut c_void, _: *mut c_void, count: u32) -> c_int {
    called(format!("unshare {:#x}: {count}", handle.addr()));
    0
}

unsafe extern "C" fn map_refs(
    handle: *mut c_void,
    count: u32,
    domid: u32,
    refs: *mut Gref,
    prot: c_int,
) -> *mut c_void {
    // SAFETY: the caller has `count` references there.
    let refs = unsafe { std::slice::from_raw_parts(refs, count as usize) };
    called(format!(
        "map {:#x} of {domid}: {refs:?} {prot}",
        handle.addr()
    ));
    memory(count as usize)
}

unsafe extern "C" fn map_notify(
    _: *mut c_void,
    domid: u32,
    gref: Gref,
    prot: c_int,
    offset: u32,
    port: u32,
) -> *mut c_void {
    called(format!(
        "map_notify of {domid}: {gref} {prot} {offset} {port}"
    ));
    memory(1)
}

unsafe extern "C" fn unmap(handle: *mut c_void, _: *mut c_void, count: u32) -> c_int {
    called(format!("unmap {:#x}: {count}", handle.addr()));
    0
}

fn functions() -> Functions {
    Functions {
        xengntshr_open: open_shr,
        xengntshr_close: close,
        xengntshr_fd: no_fd,
        xengntshr_share_pages: share_pages,
        xengntshr_share_page_notify: share_notify,
        xengntshr_unshare: unshare,
        xengnttab_open: open_tab,
        xengnttab_close: close,
        xengnttab_map_domain_grant_refs: map_refs,
        xengnttab_map_grant_ref_notify: map_notify,
        xengnttab_unmap: unmap,
        _library: None,
    }
}

fn grants() -> Arc<Grants> {
    let grants = Arc::new(Grants::open(functions()).expect("handles"));
    calls();
    grants
}

const NOTIFY: Option<Notify> = Some(Notify {
    offset: 12,
    port: 34,
});

#[test]
fn shared_pages_are_unshared_on_their_handle() {
    let grants = grants();
    let pages = grants.share(5, 3, Access::ReadOnly, None).expect("shared");
    assert_eq!(pages.refs(), [100, 101, 102]);
    assert_eq!(calls(), ["share 0x51 to 5: 3 0"]);
    drop(pages);
    assert_eq!(calls(), ["unshare 0x51: 3"]);
}

#[test]
fn mapped_pages_are_unmapped_on_their_handle() {
    let grants = grants();
    let pages = grants
        .map(7, &[4, 2], Access::ReadOnly, None)
        .expect("mapped");
    assert_eq!((pages.refs(), pages.len()), (&[4, 2][..], 2 * PAGE));
    drop(pages);
    let pages = grants
        .map(7, &[4], Access::ReadWrite, None)
        .expect("mapped");
    drop(pages);
    assert_eq!(
        calls(),
        // PROT_READ is 1, PROT_WRITE is 2.
        [
            "map 0x7a of 7: [4, 2] 1",
            "unmap 0x7a: 2",
            "map 0x7a of 7: [4] 3",
            "unmap 0x7a: 1"
        ]
    );
}

#[test]
fn a_notify_byte_and_its_port_reach_the_library() {
    let grants = grants();
    drop(
        grants
            .share(5, 1, Access::ReadWrite, NOTIFY)
            .expect("shared"),
    );
    drop(
        grants
            .map(5, &[8], Access::ReadWrite, NOTIFY)
            .expect("mapped"),
    );
    let calls = calls();
    assert_eq!(calls[0], "share_notify to 5: 1 12 34");
    assert_eq!(calls[2], "map_notify of 5: 8 3 12 34");
}

#[test]
fn invalid_arguments_never_reach_the_library() {
    let grants = grants();
    let far = Some(Notify {
        offset: PAGE,
        port: 1,
    });
    let none = Some(Notify {
        offset: 0,
        port: u32::MAX,
    });
    for (pages, notify) in [
        (0, None),
        (PAGES_MAX + 1, None),
        (usize::MAX, None),
        (2, NOTIFY),
        (1, far),
        (1, none),
    ] {
        let error = grants
            .share(5, pages, Access::ReadWrite, notify)
            .unwrap_err();
        assert_eq!(
            error.kind,
            ErrorKind::Posix(Errno::INVAL),
            "{pages} {notify:?}"
        );
    }
    for refs in [&[][..], &[1, 2]] {
        assert!(grants.map(5, refs, Access::ReadWrite, NOTIFY).is_err());
    }
    assert!(grants.map(5, &[1], Access::ReadOnly, NOTIFY).is_err());
    assert!(calls().is_empty());
    // Our own mapping is always writable.
    drop(
        grants
            .share(5, 1, Access::ReadOnly, NOTIFY)
            .expect("shared"),
    );
}

#[test]
fn errno_becomes_the_error() {
    let grants = grants();
    FAILS.set(Some(Errno::NOSPC));
    let error = grants.share(5, 17, Access::ReadWrite, None).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Posix(Errno::NOSPC));
    assert!(error.what.contains("17 pages"), "{error}");
    FAILS.set(Some(Errno::INVAL));
    let error = grants.map(5, &[1], Access::ReadWrite, None).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Posix(Errno::INVAL));
    // The calls failed, so there is nothing to undo.
    assert_eq!(calls().len(), 2);
}

#[test]
fn both_handles_are_closed_after_the_last_page() {
    let grants = grants();
    let pages = grants.share(5, 1, Access::ReadWrite, None).expect("shared");
    drop(grants);
    assert_eq!(calls().len(), 1, "nothing is closed under a mapping");
    drop(pages);
    assert_eq!(calls(), ["unshare 0x51: 1", "close 0x51", "close 0x7a"]);
}

#[test]
fn the_first_handle_is_closed_when_the_second_fails() {
    let functions = Functions {
        xengnttab_open: no_tab,
        ..functions()
    };
    let error = Grants::open(functions).err().expect("refused");
    assert_eq!(error.kind, ErrorKind::Posix(Errno::ACCESS));
    assert_eq!(calls(), ["gntshr_open 0", "close 0x51"]);
}
