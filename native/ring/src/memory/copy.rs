//! How bytes get into a ring and out of it.

use std::ptr;

/// From so many bytes on the processor's own string copy is as quick as any (measured on Zen 5: slower
/// below 2 KiB, equal from 4 KiB on). Where the processor is emulated it is twice as quick as a copy
/// through vector registers, which lie in memory there.
const STRING_MIN: usize = 4096;

/// What a destination is aligned to: stores that cross from one cache line into the next cost twice.
const LINE: usize = 64;

/// Copies `length` bytes, once each but for some at either end.
///
/// # Safety
/// As for [`ptr::copy_nonoverlapping`], but that others may write what is read or read what is written: then
/// any bytes may arrive.
#[inline]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    if length < STRING_MIN {
        // SAFETY: the caller's.
        unsafe { ptr::copy_nonoverlapping(from, to, length) }
    } else {
        // SAFETY: the caller's, and there is more than a line.
        unsafe { long(from, to, length) }
    }
}

/// # Safety
/// As for [`copy`], of at least [`STRING_MIN`] bytes.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn long(from: *const u8, to: *mut u8, length: usize) {
    let skip = to.align_offset(LINE);
    let words = (length - skip) / 8;
    // SAFETY: the first line, the last eight bytes, and the whole words from `skip` on, which is less than
    // a line: all of it within `length`, which is more than a line. The direction flag is clear wherever
    // an asm block begins.
    unsafe {
        ptr::copy_nonoverlapping(from, to, LINE);
        ptr::copy_nonoverlapping(from.add(length - 8), to.add(length - 8), 8);
        std::arch::asm!(
            "rep movsq",
            inout("rcx") words => _,
            inout("rsi") from.add(skip) => _,
            inout("rdi") to.add(skip) => _,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
/// As for [`copy`].
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
unsafe fn long(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the caller's.
    unsafe { ptr::copy_nonoverlapping(from, to, length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = STRING_MIN + 256;

    /// Every byte arrives, in its place, and no other changes.
    #[test]
    fn copies_any_length_from_and_to_any_place() {
        let from: Vec<u8> = (0..ROOM + LINE).map(|i| (i % 251) as u8).collect();
        let lengths = [0, 1, 8, 63, 64, 65, 1000]
            .into_iter()
            .chain(STRING_MIN - 9..=STRING_MIN + 73);
        for length in lengths {
            for (source, target) in (0..LINE).flat_map(|i| [(i, 0), (0, i), (i, LINE - i), (i, i)])
            {
                let mut to = vec![255; ROOM + LINE];
                assert!(source + length <= from.len() && target + length <= to.len());
                // SAFETY: both lie within their vectors, as was asserted.
                unsafe {
                    copy(
                        from.as_ptr().add(source),
                        to.as_mut_ptr().add(target),
                        length,
                    )
                };
                let (before, rest) = to.split_at(target);
                let (copied, after) = rest.split_at(length);
                assert_eq!(copied, &from[source..source + length]);
                assert!(before.iter().chain(after).all(|byte| *byte == 255));
            }
        }
    }
}
