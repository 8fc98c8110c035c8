//! Limits that NIF and driver share.

/// The VM keeps binaries of up to this many bytes on the process heap (`ERL_ONHEAP_BIN_LIMIT`) and
/// copies them whenever it copies a message.
pub const ON_HEAP: usize = 64;

/// The most bytes that a link copies in one call, or little more.
pub const CALL_BYTES: usize = 256 << 10;
