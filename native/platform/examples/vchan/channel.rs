//! One end of a libxenvchan channel. The library is loaded by its versioned name at run time.
//!
//! It promises no stable ABI, so its soname has Xen's version. The types are those of
//! tools/libs/vchan/include/libxenvchan.h in Xen 4.17.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::io::{Error, Result};
use std::mem::offset_of;
use std::ptr::{NonNull, null_mut};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

const SONAME: &str = "libxenvchan.so.4.17";

/// `struct libxenvchan_ring`.
#[repr(C)]
struct Ring {
    shared: *mut c_void,
    buffer: *mut c_void,
    order: c_int,
}

/// `struct libxenvchan`. Callers set one flag and read the sizes.
#[repr(C)]
struct Control {
    grants: *mut c_void,
    page: *mut c_void,
    event: *mut c_void,
    event_port: u32,
    /// One-bit fields, the first in the lowest bit.
    flags: c_uint,
    read: Ring,
    write: Ring,
    path: *mut c_char,
}

/// The third flag: calls block instead of returning 0.
const BLOCKING: c_uint = 1 << 2;

// The layout of C on x86-64, the architecture of the lab.
const _: () = {
    assert!(offset_of!(Control, flags) == 28);
    assert!(offset_of!(Control, read) == 32);
    assert!(offset_of!(Control, write) == 56);
    assert!(size_of::<Control>() == 88);
};

type Server = unsafe extern "C" fn(
    *mut c_void,
    c_int,
    *const c_char,
    /* read */ usize,
    /* write */ usize,
) -> *mut Control;
type Client = unsafe extern "C" fn(*mut c_void, c_int, *const c_char) -> *mut Control;
type Send = unsafe extern "C" fn(*mut Control, *const c_void, usize) -> c_int;
type Recv = unsafe extern "C" fn(*mut Control, *mut c_void, usize) -> c_int;
type Close = unsafe extern "C" fn(*mut Control);

/// One end of a channel, in blocking mode.
pub struct Channel {
    raw: NonNull<Control>,
    send: Send,
    recv: Recv,
    close: Close,
    /// Last, so that it is dropped last.
    _library: Library,
}

impl Channel {
    /// Offers a channel with a ring of `bytes` in each direction.
    pub fn offer(peer: c_int, path: &str, bytes: usize) -> Result<Self> {
        let path = CString::new(path)?;
        Self::made(|library| {
            let server: Server = symbol(library, "libxenvchan_server_init")?;
            // SAFETY: NULL is no logger, and the path outlives the call.
            Ok(unsafe { server(null_mut(), peer, path.as_ptr(), bytes, bytes) })
        })
    }

    /// Opens the channel that `peer` offers.
    pub fn open(peer: c_int, path: &str) -> Result<Self> {
        let path = CString::new(path)?;
        Self::made(|library| {
            let client: Client = symbol(library, "libxenvchan_client_init")?;
            // SAFETY: as above.
            Ok(unsafe { client(null_mut(), peer, path.as_ptr()) })
        })
    }

    fn made(make: impl FnOnce(&Library) -> Result<*mut Control>) -> Result<Self> {
        // SAFETY: loading runs the initialisers of a system library, and this one has none.
        let library = unsafe { Library::open(Some(SONAME), RTLD_NOW | RTLD_LOCAL) };
        let library = library.map_err(Error::other)?;
        let (send, recv, close) = (
            symbol(&library, "libxenvchan_send")?,
            symbol(&library, "libxenvchan_recv")?,
            symbol(&library, "libxenvchan_close")?,
        );
        let raw = NonNull::new(make(&library)?).ok_or_else(Error::last_os_error)?;
        // SAFETY: the library allocated it, and this is its only owner. Callers may set the flag.
        unsafe { (*raw.as_ptr()).flags |= BLOCKING };
        Ok(Self {
            raw,
            send,
            recv,
            close,
            _library: library,
        })
    }

    /// Sizes of the receive and transmit rings in bytes.
    pub fn rings(&self) -> (u64, u64) {
        // SAFETY: the channel is open, and only `close` writes to it.
        let (read, write) = unsafe {
            (
                (*self.raw.as_ptr()).read.order,
                (*self.raw.as_ptr()).write.order,
            )
        };
        (1 << read, 1 << write)
    }

    /// Sends all of `data`.
    pub fn send(&mut self, data: &[u8]) -> Result<()> {
        // SAFETY: the channel is open, and `data` outlives the call.
        let sent = unsafe { (self.send)(self.raw.as_ptr(), data.as_ptr().cast(), data.len()) };
        whole(sent, data.len())
    }

    /// Receives until `data` is full.
    pub fn recv(&mut self, data: &mut [u8]) -> Result<()> {
        // SAFETY: the channel is open, and `data` is ours to write.
        let got = unsafe { (self.recv)(self.raw.as_ptr(), data.as_mut_ptr().cast(), data.len()) };
        whole(got, data.len())
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: it is open, and this is its only owner.
        unsafe { (self.close)(self.raw.as_ptr()) };
    }
}

fn whole(count: c_int, wanted: usize) -> Result<()> {
    match usize::try_from(count) {
        Ok(count) if count == wanted => Ok(()),
        _ => Err(Error::other(format!(
            "the channel transferred {count} bytes instead of {wanted}"
        ))),
    }
}

/// Looks up a function. `T` must be its type in the header.
fn symbol<T: Copy>(library: &Library, name: &str) -> Result<T> {
    // SAFETY: each caller passes the type in the header, and keeps the library as long as the
    // address.
    let symbol = unsafe { library.get::<T>(name.as_bytes()) };
    symbol.map(|address| *address).map_err(Error::other)
}
