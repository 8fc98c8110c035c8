//! Memory for long messages, which NIF and driver can both fill and hand to the VM.

use crate::sys;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

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
