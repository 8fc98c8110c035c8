//! libxenvchan, found by its versioned name at run time, and one end of a channel.
//!
//! The library promises no stable interface, so its name has Xen's version. The
//! types are those of tools/libs/vchan/include/libxenvchan.h in Xen 4.17.

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

/// `struct libxenvchan`, of which callers set one flag and read the sizes.
#[repr(C)]
struct Control {
    grants: *mut c_void,
    page: *mut c_void,
    event: *mut c_void,
    event_port: u32,
    /// Bit-fields of one bit each, the first in the lowest bit.
    flags: c_uint,
    read: Ring,
    write: Ring,
    path: *mut c_char,
}

/// The third of the flags: calls wait instead of giving back 0.
const BLOCKING: c_uint = 1 << 2;

// As the compiler of C lays it out on x86-64, where the lab is.
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

/// One end, in blocking mode.
pub struct Channel {
    raw: NonNull<Control>,
    send: Send,
    recv: Recv,
    close: Close,
    /// Last, so that it goes last.
    _library: Library,
}

impl Channel {
    /// Offers a channel with `bytes` of ring in each direction.
    pub fn offer(peer: c_int, path: &str, bytes: usize) -> Result<Self> {
        let path = CString::new(path)?;
        Self::made(|library| {
            let server: Server = symbol(library, "libxenvchan_server_init")?;
            // SAFETY: no logger is asked for, and the path outlives the call.
            Ok(unsafe { server(null_mut(), peer, path.as_ptr(), bytes, bytes) })
        })
    }

    /// Opens one that `peer` offers.
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
        // SAFETY: the library has made it, and nobody else has it. The flag is the caller's.
        unsafe { (*raw.as_ptr()).flags |= BLOCKING };
        Ok(Self {
            raw,
            send,
            recv,
            close,
            _library: library,
        })
    }

    /// Bytes of the receive and transmit rings.
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

    /// All of it, at once.
    pub fn send(&mut self, data: &[u8]) -> Result<()> {
        // SAFETY: the channel is open, and the bytes are there for the length of the call.
        let sent = unsafe { (self.send)(self.raw.as_ptr(), data.as_ptr().cast(), data.len()) };
        whole(sent, data.len())
    }

    /// As many bytes as `data` has.
    pub fn recv(&mut self, data: &mut [u8]) -> Result<()> {
        // SAFETY: the channel is open, and the bytes are ours to be written to.
        let got = unsafe { (self.recv)(self.raw.as_ptr(), data.as_mut_ptr().cast(), data.len()) };
        whole(got, data.len())
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody uses it any more.
        unsafe { (self.close)(self.raw.as_ptr()) };
    }
}

fn whole(count: c_int, wanted: usize) -> Result<()> {
    match usize::try_from(count) {
        Ok(count) if count == wanted => Ok(()),
        _ => Err(Error::other(format!(
            "the channel gave {count} for {wanted}"
        ))),
    }
}

/// `T` is to be the function's type in the header.
fn symbol<T: Copy>(library: &Library, name: &str) -> Result<T> {
    // SAFETY: each caller names the type that the header has, and keeps the library for as long as
    // the address.
    let symbol = unsafe { library.get::<T>(name.as_bytes()) };
    symbol.map(|address| *address).map_err(Error::other)
}
