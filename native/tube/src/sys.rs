//! The part of `erl_driver.h` that this library uses (version 3.3, the same from OTP 25 to 29). The
//! build does not read the header, so sizes and offsets are asserted.

use std::ffi::{c_char, c_int, c_uint, c_ulong, c_void};

/// `ErlDrvPort`.
pub type Port = *mut c_void;
/// `ErlDrvData`: what `start` returns, passed to every other callback.
pub type Data = *mut c_void;
/// `ErlDrvEvent`: on Unix a file descriptor, cast to a pointer.
pub type Event = *mut c_void;
/// `ErlDrvTermData`: a word of a term specification, or a term.
pub type Word = usize;

/// `ERL_DRV_READ`.
pub const READ: c_int = 1;
/// `ERL_DRV_WRITE`.
pub const WRITE: c_int = 1 << 1;
/// `ERL_DRV_USE`: when it is switched off, `stop_select` follows.
pub const USE: c_int = 1 << 2;

/// `ERL_DRV_ERROR_GENERAL`: `open_port` fails with `einval`.
pub const ERROR_GENERAL: Data = -1isize as Data;
/// `ERL_DRV_ERROR_BADARG`: `open_port` fails with `badarg`.
pub const ERROR_BADARG: Data = -3isize as Data;

/// `ERL_DRV_EXTENDED_MARKER`.
pub const EXTENDED_MARKER: c_uint = 0xFEEE_EEED;
/// `ERL_DRV_EXTENDED_MAJOR_VERSION`, `ERL_DRV_EXTENDED_MINOR_VERSION`.
pub const EXTENDED_VERSION: (c_int, c_int) = (3, 3);
/// `ERL_DRV_FLAG_USE_PORT_LOCKING`: a lock per port instead of one for the driver.
pub const FLAG_USE_PORT_LOCKING: c_int = 1;
/// `ERL_DRV_FLAG_SOFT_BUSY`: a busy port still gets commands that the sender forces.
pub const FLAG_SOFT_BUSY: c_int = 1 << 1;

/// Tags of term specifications, each followed by its arguments.
pub mod tag {
    use super::Word;
    /// `ERL_DRV_ATOM`, an atom.
    pub const ATOM: Word = 2;
    /// `ERL_DRV_PORT`, a port.
    pub const PORT: Word = 4;
    /// `ERL_DRV_BINARY`, a driver binary, size, offset.
    pub const BINARY: Word = 5;
    /// `ERL_DRV_TUPLE`, its size.
    pub const TUPLE: Word = 7;
    /// `ERL_DRV_PID`, a process identifier.
    pub const PID: Word = 10;
    /// `ERL_DRV_UINT`, an integer.
    pub const UINT: Word = 13;
    /// `ERL_DRV_BUF2BINARY`, address and size of bytes to copy.
    pub const BUF2BINARY: Word = 14;
    /// `ERL_DRV_MAP`, the number of pairs.
    pub const MAP: Word = 17;
}

/// `SysIOVec`, which is `struct iovec`.
#[repr(C)]
pub struct IoVec {
    /// First byte.
    pub base: *mut u8,
    /// Length in bytes.
    pub len: usize,
}

/// `ErlDrvBinary`: its bytes follow its size.
#[repr(C)]
pub struct DriverBinary {
    /// Length in bytes.
    pub orig_size: isize,
    /// The first of `orig_size` bytes.
    pub orig_bytes: [u8; 0],
}

/// `ErlIOVec`.
#[repr(C)]
pub struct ErlIoVec {
    /// Elements of `iov` and `binv`.
    pub vsize: c_int,
    /// Bytes in all.
    pub size: usize,
    /// The pieces.
    pub iov: *mut IoVec,
    /// The binary of each piece, or null.
    pub binv: *mut *mut DriverBinary,
}

/// `ErlDrvEntry`.
#[repr(C)]
pub struct DriverEntry {
    pub init: Option<unsafe extern "C" fn() -> c_int>,
    pub start: Option<unsafe extern "C" fn(Port, *mut c_char) -> Data>,
    pub stop: Option<unsafe extern "C" fn(Data)>,
    pub output: Option<unsafe extern "C" fn(Data, *mut c_char, usize)>,
    pub ready_input: Option<unsafe extern "C" fn(Data, Event)>,
    pub ready_output: Option<unsafe extern "C" fn(Data, Event)>,
    pub driver_name: *const c_char,
    pub finish: Option<unsafe extern "C" fn()>,
    pub handle: *mut c_void,
    pub control: Option<Control>,
    pub timeout: Option<unsafe extern "C" fn(Data)>,
    pub outputv: Option<unsafe extern "C" fn(Data, *mut ErlIoVec)>,
    pub ready_async: Option<unsafe extern "C" fn(Data, *mut c_void)>,
    pub flush: Option<unsafe extern "C" fn(Data)>,
    pub call: Option<unsafe extern "C" fn()>,
    pub unused_event_callback: Option<unsafe extern "C" fn()>,
    pub extended_marker: c_uint,
    pub major_version: c_int,
    pub minor_version: c_int,
    pub driver_flags: c_int,
    pub handle2: *mut c_void,
    pub process_exit: Option<unsafe extern "C" fn(Data, *mut c_void)>,
    pub stop_select: Option<unsafe extern "C" fn(Event, *mut c_void)>,
    pub emergency_close: Option<unsafe extern "C" fn(Data)>,
}

/// `control` of [`DriverEntry`]: command, data and its length, room for the reply and its length.
pub type Control =
    unsafe extern "C" fn(Data, c_uint, *mut c_char, usize, *mut *mut c_char, usize) -> isize;

const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<DriverEntry>() == 176);
    assert!(offset_of!(DriverEntry, driver_name) == 48);
    assert!(offset_of!(DriverEntry, control) == 72);
    assert!(offset_of!(DriverEntry, extended_marker) == 128);
    assert!(offset_of!(DriverEntry, handle2) == 144);
    assert!(offset_of!(DriverEntry, stop_select) == 160);
    assert!(size_of::<ErlIoVec>() == 32);
    assert!(size_of::<IoVec>() == 16);
    assert!(offset_of!(DriverBinary, orig_bytes) == 8);
    // The offsets above are those of a 64-bit VM, the only kind that is supported.
    assert!(size_of::<Word>() == 8);
};

unsafe extern "C" {
    pub fn driver_select(port: Port, event: Event, mode: c_int, on: c_int) -> c_int;
    pub fn driver_output(port: Port, bytes: *const u8, len: usize) -> c_int;
    pub fn driver_output_binary(
        port: Port,
        header: *const u8,
        header_len: usize,
        binary: *mut DriverBinary,
        offset: usize,
        len: usize,
    ) -> c_int;
    pub fn driver_set_timer(port: Port, milliseconds: c_ulong) -> c_int;
    pub fn driver_failure_eof(port: Port) -> c_int;
    pub fn driver_failure_atom(port: Port, reason: *const c_char) -> c_int;
    pub fn driver_failure_posix(port: Port, errno: c_int) -> c_int;
    pub fn driver_alloc_binary(size: usize) -> *mut DriverBinary;
    pub fn driver_free_binary(binary: *mut DriverBinary);
    pub fn driver_enqv(port: Port, vector: *mut ErlIoVec, skip: usize) -> c_int;
    pub fn driver_deq(port: Port, size: usize) -> usize;
    pub fn driver_sizeq(port: Port) -> usize;
    pub fn driver_peekq(port: Port, pieces: *mut c_int) -> *mut IoVec;
    pub fn driver_mk_atom(name: *const c_char) -> Word;
    pub fn driver_mk_port(port: Port) -> Word;
    pub fn driver_connected(port: Port) -> Word;
    pub fn driver_caller(port: Port) -> Word;
    pub fn driver_lock_driver(port: Port) -> c_int;
    pub fn erl_drv_send_term(port: Word, to: Word, spec: *const Word, len: c_int) -> c_int;
    pub fn set_busy_port(port: Port, on: c_int);
}
