//! The calls that reach the library, observed by fake functions. A handle is one end of a socket
//! pair; the other end acts as the kernel.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::{read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;

struct Fake {
    ours: OwnedFd,
    kernel: OwnedFd,
    closed: bool,
}

thread_local! {
    static LAST: std::cell::Cell<*mut Fake> = const { std::cell::Cell::new(ptr::null_mut()) };
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

fn fails(errno: Errno) -> c_int {
    // SAFETY: the C library's errno of this thread.
    unsafe { *__errno_location() = errno.raw_os_error() };
    -1
}

/// # Safety
/// `handle` comes from `open`.
unsafe fn fake<'a>(handle: *mut c_void) -> &'a mut Fake {
    // SAFETY: the caller's contract; a fake is never freed.
    unsafe { &mut *handle.cast() }
}

unsafe extern "C" fn open(_: *mut Logger, flags: c_uint) -> *mut c_void {
    assert_eq!(flags, 0);
    // Blocking, because the library opens the device blocking.
    let (ours, kernel) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let fake = Box::leak(Box::new(Fake {
        ours,
        kernel,
        closed: false,
    }));
    LAST.set(fake);
    (&raw mut *fake).cast()
}

unsafe extern "C" fn close(handle: *mut c_void) -> c_int {
    // SAFETY: ours.
    unsafe { fake(handle) }.closed = true;
    0
}

unsafe extern "C" fn fd(handle: *mut c_void) -> c_int {
    // SAFETY: ours.
    unsafe { fake(handle) }.ours.as_raw_fd()
}

unsafe extern "C" fn unbound(_: *mut c_void, domid: u32) -> c_int {
    if domid == 9 {
        fails(Errno::NOSPC)
    } else {
        1000 + domid as c_int
    }
}

unsafe extern "C" fn interdomain(_: *mut c_void, domid: u32, remote: u32) -> c_int {
    if remote == 9 {
        fails(Errno::INVAL)
    } else {
        (2000 + domid + remote) as c_int
    }
}

unsafe extern "C" fn notify(handle: *mut c_void, port: u32) -> c_int {
    // SAFETY: ours.
    unsafe { unmask(handle, port) }
}

unsafe extern "C" fn pending(handle: *mut c_void) -> c_int {
    let mut port = [0; 4];
    // SAFETY: ours.
    match read(&unsafe { fake(handle) }.ours, &mut port) {
        Ok(4) => c_int::from_ne_bytes(port),
        Ok(_) => fails(Errno::IO),
        Err(errno) => fails(errno),
    }
}

unsafe extern "C" fn unmask(handle: *mut c_void, port: u32) -> c_int {
    // SAFETY: ours.
    write(&unsafe { fake(handle) }.ours, &port.to_ne_bytes()).map_or_else(fails, |_| 0)
}

fn evtchn() -> Evtchn {
    Evtchn::new(Functions {
        xenevtchn_open: open,
        xenevtchn_close: close,
        xenevtchn_fd: fd,
        xenevtchn_bind_unbound_port: unbound,
        xenevtchn_bind_interdomain: interdomain,
        xenevtchn_notify: notify,
        xenevtchn_pending: pending,
        xenevtchn_unmask: unmask,
        _library: None,
    })
}

/// The kernel's side of the most recently opened handle.
fn kernel() -> (OwnedFd, &'static Fake) {
    // SAFETY: set by `open` in this thread, never freed, and read only between calls.
    let fake = unsafe { &*LAST.get() };
    // SAFETY: a new duplicate, which nothing else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(rustix::io::dup(&fake.kernel).unwrap().into_raw_fd()) };
    (fd, fake)
}

use std::os::fd::IntoRawFd;

#[test]
fn a_pending_port_is_read_and_written_back() {
    let channel = evtchn().alloc(5).expect("a port");
    assert_eq!(channel.port(), 1005);
    let (kernel, _) = kernel();
    write(&kernel, &1005u32.to_ne_bytes()).expect("pending");
    assert_eq!(channel.acknowledge(), Ok(Ack::Open));
    let mut back = [0; 8];
    assert_eq!(read(&kernel, &mut back), Ok(4));
    assert_eq!(back[..4], 1005u32.to_ne_bytes());
}

/// The device is opened blocking: if it stayed so, this test would hang.
#[test]
fn nothing_pending_does_not_block_and_unmasks_nothing() {
    let channel = evtchn().bind(5, 3).expect("bound");
    assert_eq!(channel.port(), 2008);
    assert_eq!(channel.acknowledge(), Ok(Ack::Open));
    let (kernel, _) = kernel();
    channel.notify().expect("notified");
    let mut written = [0; 8];
    assert_eq!(read(&kernel, &mut written), Ok(4), "only the notification");
    assert_eq!(written[..4], 2008u32.to_ne_bytes());
}

#[test]
fn a_broken_descriptor_is_an_error() {
    let channel = evtchn().alloc(5).expect("a port");
    let (kernel, _) = kernel();
    rustix::net::shutdown(&kernel, rustix::net::Shutdown::Write).expect("shut");
    let error = channel.acknowledge().unwrap_err();
    assert_eq!(error.kind, crate::ErrorKind::Posix(Errno::IO));
}

#[test]
fn a_failed_call_closes_its_handle() {
    let evtchn = evtchn();
    assert_eq!(evtchn.alloc(9).err().expect("refused").atom(), "enospc");
    assert!(kernel().1.closed);
    assert_eq!(evtchn.bind(1, 9).err().expect("refused").atom(), "einval");
    assert!(kernel().1.closed);
}

#[test]
fn a_channel_closes_its_handle() {
    let channel = evtchn().alloc(5).expect("a port");
    assert!(!kernel().1.closed);
    drop(channel);
    assert!(kernel().1.closed);
}
