//! Memory for long messages.

use crate::sys;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

/// A long message on its way in: a driver binary with no other owner. NIF and driver can both fill
/// it and pass it to the VM without another copy.
pub struct Buffer {
    binary: NonNull<sys::DriverBinary>,
    /// Bytes of the message; there is room for [`SPARE`] more.
    len: usize,
}

/// Bytes that can be appended to a message: see `driver/fragments.rs`.
pub const SPARE: usize = 512;

// SAFETY: any thread may use and free a driver binary.
unsafe impl Send for Buffer {}
// SAFETY: a shared `Buffer` only reads.
unsafe impl Sync for Buffer {}

impl tube_link::Buffer for Buffer {
    fn new(len: usize) -> Option<Buffer> {
        // SAFETY: any length is allowed.
        let binary = NonNull::new(unsafe { sys::driver_alloc_binary(len.checked_add(SPARE)?) })?;
        Some(Buffer { binary, len })
    }

    fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the VM allocated at least this length, and only `self` refers to it.
        unsafe { std::slice::from_raw_parts_mut(self.bytes().cast_mut().cast(), self.len()) }
    }
}

impl Buffer {
    /// The message. The link has filled the buffer before it hands it over.
    pub fn filled(&self) -> &[u8] {
        // SAFETY: of this length, initialised by the link, and nothing writes any more.
        unsafe { std::slice::from_raw_parts(self.bytes(), self.len()) }
    }

    /// The message, to change it.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `filled`, and nothing else refers to it yet.
        unsafe { std::slice::from_raw_parts_mut(self.bytes().cast_mut(), self.len()) }
    }

    /// Appends to the message, at most [`SPARE`] bytes in all. False if there is no room.
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        // SAFETY: the binary lives as long as `self`.
        let room = unsafe { (*self.binary.as_ptr()).orig_size as usize } - self.len;
        if bytes.len() > room {
            return false;
        }
        // SAFETY: there is that much room after the message, and nothing else refers to that memory
        // yet, so `bytes` are not in it.
        unsafe {
            let end = self.bytes().cast_mut().add(self.len);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), end, bytes.len());
        }
        self.len += bytes.len();
        true
    }

    /// The length of the message in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The binary, valid as long as `self`.
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
        // SAFETY: releases the reference of `self`, once. Terms made of it have their own.
        unsafe { sys::driver_free_binary(self.binary.as_ptr()) }
    }
}
