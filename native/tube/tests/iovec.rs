//! Slices of the VM's I/O vectors.

#[path = "../src/driver/iovec.rs"]
mod iovec;
#[allow(dead_code, missing_docs)]
#[path = "../src/sys.rs"]
mod sys;

use iovec::{pieces, prefix};

fn vector(parts: &mut [Vec<u8>]) -> Vec<sys::IoVec> {
    let piece = |part: &mut Vec<u8>| sys::IoVec {
        base: part.as_mut_ptr(),
        len: part.len(),
    };
    parts.iter_mut().map(piece).collect()
}

#[test]
fn a_prefix_may_end_within_a_piece() {
    let mut parts = [b"abc".to_vec(), vec![], b"de".to_vec()];
    let vector = vector(&mut parts);
    // SAFETY: the vector has that many pieces, of bytes that outlive them.
    let pieces = unsafe { pieces(vector.as_ptr(), vector.len()) };
    assert_eq!(prefix(pieces, 5).concat(), b"abcde");
    assert_eq!(prefix(pieces, 4).concat(), b"abcd");
    assert_eq!(prefix(pieces, 2), [b"ab"]);
    assert!(prefix(pieces, 0).is_empty());
}

#[test]
fn no_vector_has_no_pieces_and_an_empty_piece_needs_no_address() {
    // SAFETY: null stands for no pieces.
    assert!(unsafe { pieces(std::ptr::null(), 3) }.is_empty());
    let empty = sys::IoVec {
        base: std::ptr::null_mut(),
        len: 0,
    };
    // SAFETY: one piece, of no bytes.
    let pieces = unsafe { pieces(&raw const empty, 1) };
    assert_eq!(prefix(pieces, 1), [b""]);
}
