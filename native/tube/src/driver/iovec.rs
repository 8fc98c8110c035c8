//! The pieces of an I/O vector of the VM, as slices.

use crate::sys;

/// One piece.
#[repr(transparent)]
pub struct Piece(sys::IoVec);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        match self.0.len {
            // An empty piece may have no address.
            0 => &[],
            // SAFETY: `pieces` was promised that the bytes are readable as long as this is
            // borrowed.
            len => unsafe { std::slice::from_raw_parts(self.0.base, len) },
        }
    }
}

/// The pieces of a vector.
///
/// # Safety `iov` points to `count` pieces (or is null, for none). They and their bytes do not
/// change for `'a`.
pub unsafe fn pieces<'a>(iov: *const sys::IoVec, count: usize) -> &'a [Piece] {
    match iov.is_null() {
        true => &[],
        // SAFETY: the caller's promise, and a `Piece` has the layout of what it wraps.
        false => unsafe { std::slice::from_raw_parts(iov.cast(), count) },
    }
}

/// The first `size` bytes of `pieces`. The last piece may be cut short.
pub fn prefix(pieces: &[Piece], size: usize) -> Vec<&[u8]> {
    let mut left = size;
    let mut parts = Vec::new();
    for piece in pieces {
        if left == 0 {
            break;
        }
        let bytes = piece.as_ref();
        let bytes = &bytes[..bytes.len().min(left)];
        left -= bytes.len();
        parts.push(bytes);
    }
    parts
}
