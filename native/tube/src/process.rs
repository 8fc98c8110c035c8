//! What of the VM a link deals with: processes, and buffers for long messages.

use crate::driver::sys;
use rustler::sys::ErlNifPid;
use rustler::{Env, LocalPid};
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use tube_link::Vm;

/// The Erlang VM.
pub struct Beam;

impl Vm for Beam {
    type Process = Pid;
    type Buffer = Buffer;
}

/// A local process.
///
/// NIFs know processes as `ErlNifPid`, drivers as `ErlDrvTermData`; both are the one word that the VM
/// itself uses. No header promises that, so the driver compares the two views of its owner before
/// it lets data flow (`link_start`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid(usize);

impl Pid {
    /// The calling process of a NIF.
    pub fn caller(env: Env<'_>) -> Pid {
        Pid::from_nif(env.pid())
    }

    /// As a NIF was given it.
    pub fn from_nif(pid: LocalPid) -> Pid {
        // SAFETY: erl_nif.h defines `ErlNifPid` as a structure of this one word. The size is checked by the
        // compiler.
        Pid(unsafe { std::mem::transmute::<ErlNifPid, usize>(*pid.as_c_arg()) })
    }

    /// As a driver was given it.
    pub fn from_word(word: sys::Word) -> Pid {
        Pid(word)
    }

    /// For a NIF.
    pub fn nif(self) -> LocalPid {
        // SAFETY: as above, and the word came from the VM as a local pid.
        LocalPid::from_c_arg(unsafe { std::mem::transmute::<usize, ErlNifPid>(self.0) })
    }

    /// For a driver.
    pub fn word(self) -> sys::Word {
        self.0
    }
}

/// A driver binary that is ours alone: a long message on its way in. NIF and driver can both fill it,
/// and both can give it to the VM without another copy.
pub struct Buffer {
    binary: NonNull<sys::DriverBinary>,
    /// Bytes that are meant; there is room for [`SPARE`] more.
    len: usize,
}

/// Bytes that may be put behind a message: see `driver/fragments.rs`.
pub const SPARE: usize = 512;

// SAFETY: driver binaries may be used and freed by any thread.
unsafe impl Send for Buffer {}
// SAFETY: a shared `Buffer` only reads.
unsafe impl Sync for Buffer {}

impl tube_link::Buffer for Buffer {
    fn new(len: usize) -> Option<Buffer> {
        // SAFETY: any length may be asked for.
        let binary = NonNull::new(unsafe { sys::driver_alloc_binary(len.checked_add(SPARE)?) })?;
        Some(Buffer { binary, len })
    }

    fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the VM made it with this length at least, and `self` is the only one who knows it.
        unsafe { std::slice::from_raw_parts_mut(self.bytes().cast_mut().cast(), self.len()) }
    }
}

impl Buffer {
    /// The bytes of a buffer that was filled, as a link hands it over.
    pub fn filled(&self) -> &[u8] {
        // SAFETY: of this length, initialised by the link, and nobody writes any more.
        unsafe { std::slice::from_raw_parts(self.bytes(), self.len()) }
    }

    /// The same, to be changed.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `filled`, and nobody else has it yet.
        unsafe { std::slice::from_raw_parts_mut(self.bytes().cast_mut(), self.len()) }
    }

    /// Puts bytes behind a buffer that was filled, [`SPARE`] at most in all. False: there is no room.
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        // SAFETY: the binary lives as long as `self`.
        let room = unsafe { (*self.binary.as_ptr()).orig_size as usize } - self.len;
        if bytes.len() > room {
            return false;
        }
        // SAFETY: there is that much room behind what was filled, and nobody else has that memory yet, so
        // `bytes` do not lie in it.
        unsafe {
            let end = self.bytes().cast_mut().add(self.len);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), end, bytes.len());
        }
        self.len += bytes.len();
        true
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// For a term specification, while `self` lives.
    pub fn as_ptr(&self) -> *mut sys::DriverBinary {
        self.binary.as_ptr()
    }

    fn bytes(&self) -> *const u8 {
        // SAFETY: the binary lives as long as `self`.
        unsafe { (&raw const (*self.binary.as_ptr()).orig_bytes).cast() }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: our reference, given back once. Terms made of it have their own.
        unsafe { sys::driver_free_binary(self.binary.as_ptr()) }
    }
}
